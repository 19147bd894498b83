"""A query ends when its cell is interrupted, in a plain IPython and in a kernel of Jupyter."""

import subprocess
import sys

import pytest

from tests.console.screens import ROOT, Screen, environment
from tests.support.common import RUNAWAY

pytestmark = pytest.mark.usefixtures("plain_signals")

START = "from supervisor import *; db = Supervisor.start()"
STATE = "(db.ask(Status()).running + 3000, db.ask(Status()).cancelled + 4000)"


@pytest.mark.parametrize(
    "line",
    [
        f"db.ask(Query({RUNAWAY!r}))",
        f"await db.ask(Query({RUNAWAY!r}), block=False)",
        f"import asyncio; await asyncio.gather(db.ask(Query({RUNAWAY!r}), block=False), asyncio.sleep(1000))",
    ],
    ids=["ask", "await", "gather"],
)
def test_ctrl_c_in_a_plain_ipython_cancels_the_query(tmp_path, line):
    pytest.importorskip("IPython")
    with Screen(tmp_path, command=(sys.executable, "-m", "IPython", "--no-banner"), columns=160) as screen:
        screen.wait_for("In [1]")
        screen.enter(START)
        screen.wait_for("In [2]")
        screen.enter(line)
        screen.interrupt_until("KeyboardInterrupt")
        screen.enter(STATE)
        screen.wait_for("(3000, 4001)")
        assert "CancelledError" not in screen.text
        screen.enter("(await db.ask(Query('select 40 + 2'), block=False)).scalar() + 5000")
        screen.wait_for("5042")


SAY = (
    "import threading\n"
    "def say():\n"
    "    while not db.ask(Status()).running: pass\n"
    "    print('interrupt me', flush=True)\n"
    "threading.Thread(target=say).start()\n"
)


@pytest.fixture
def cells(tmp_path):
    """Run cells in a kernel, and return the text of their outputs."""
    pytest.importorskip("ipykernel")

    def run(*cells):
        program = ROOT / "tests" / "support" / "programs" / "kernel.py"
        ran = subprocess.run(
            [sys.executable, str(program), *cells],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


@pytest.mark.parametrize("line", [f"db.ask(Query({RUNAWAY!r}))", f"await db.ask(Query({RUNAWAY!r}), block=False)"])
def test_an_interrupt_of_the_kernel_cancels_the_query(cells, line):
    shown = cells(START, SAY + line, STATE, SAY + line, STATE)
    assert "(3000, 4001)" in shown, shown
    assert "(3000, 4002)" in shown, shown
