"""A query ends when its cell is interrupted, in a plain IPython and in a kernel of Jupyter."""

import subprocess
import sys

import pytest

from tests.console.screens import ROOT, Screen, environment
from tests.support.common import RUNAWAY

pytestmark = pytest.mark.usefixtures("plain_signals")

START = "from supervisor import *; db = Supervisor.start()"
# The first part waits until the worker has left the statement.
STATE = "none = [*iter(lambda: db.ask(Status()).running, 0)]; (3000, db.ask(Status()).cancelled + 4000)"


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


# --- %sql ---------------------------------------------------------------------------------

MAGIC = START + "; limit = 2\n%load_ext actors.console.notebook"
MADE = "%%sql\ncreate table t(a, b); insert into t values (1, 'x'), (2, 'y'), (3, null)"


def test_sql_in_a_cell_takes_variables_and_gives_its_last_rows(cells):
    shown = cells(
        MAGIC,
        MADE,
        "%%sql\nupdate t set b = 'z' where a = :limit;\nselect b from t where a <= :limit -- ':nothing'",
        "rows = %sql select * from t\n(len(rows), rows[0].b)",
        "other = db\n",
        "%%sql other\nselect 40 + 2",
    )
    assert ">x</td>" in shown
    assert ">z</td>" in shown
    assert "(3, 'x')" in shown
    assert ">42</td>" in shown
    assert "error" not in shown


def test_errors_of_sql_in_a_cell_are_short_and_mark_the_place(cells):
    shown = cells(MAGIC, MADE, "%sql select nope from t", "%sql select :missing", "%sql", "%%sql limit\nselect 1")
    assert "error: SQLError\nSQLError: no such column: nope\nselect nope from t\n       ^\n" in shown
    assert "there is no variable 'missing' for :missing" in shown
    assert "there is no SQL" in shown
    assert "'limit' is no crew" in shown


def test_an_error_that_is_not_the_databases_is_short_too_and_runs_the_statement_once(cells):
    shown = cells(
        MAGIC,
        "%sql select cast(x'ff' as text)",
        "wrong = {}",
        "%sql select :wrong",
        "status = db.ask(Status()); status.submitted + 5000",
    )
    assert "error: UnicodeDecodeError\nUnicodeDecodeError: a value of type text is not valid UTF-8" in shown
    assert "error: TypeError\nTypeError: Bad binding argument type" in shown
    assert "notebook.py" not in shown
    assert "5002" in shown


def test_a_long_statement_in_a_cell_shows_its_time_and_an_interrupt_cancels_it(cells):
    shown = cells(MAGIC, f"%sql {RUNAWAY}", STATE)
    assert "s   an interrupt cancels\n" in shown, shown
    assert "KeyboardInterrupt: the statement is cancelled" in shown
    assert "(3000, 4001)" in shown
