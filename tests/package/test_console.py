"""The command `querycrew`: its arguments, and an environment with another `supervisor`."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.console.signals import Signals

pytestmark = pytest.mark.usefixtures("plain_signals")

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "actors.console"]


def environment(folder, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    wanted = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "TERM": "xterm", "TMPDIR": str(folder)}
    return {**kept, **wanted, **variables}


def querycrew(folder, *arguments, **variables):
    env = environment(folder, **variables)
    # The command does not run in the project's folder, since `-m` puts the current folder on the
    # path.
    return subprocess.run(
        [*COMMAND, *arguments], env=env, cwd=folder, capture_output=True, encoding="utf-8", timeout=60, check=False
    )


# --- arguments ----------------------------------------------------------------------------


def test_without_a_command_it_prints_its_help(tmp_path):
    done = querycrew(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: querycrew")
    assert "demo" in done.stdout


def test_it_prints_its_version_also_if_it_is_not_installed(tmp_path):
    done = querycrew(tmp_path, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"querycrew \d+\.\d+\.\d+.*\n|querycrew, run from its source .*\n", done.stdout)


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "inf", "ten", "0.5", ""])
def test_seconds_that_make_no_sense_are_refused_with_a_reason(tmp_path, seconds):
    done = querycrew(tmp_path, "demo", f"--seconds={seconds}")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"--seconds: (must be 1 or more seconds, not |'.*' is not a number of seconds)", done.stderr)


def test_help_is_quick_since_it_loads_neither_pykka_nor_apsw(tmp_path):
    code = "import sys\ntry: run(['--help'])\nfinally: print({'pykka', 'apsw', 'supervisor'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"from actors.console.main import run\n{code}"],
        env=environment(tmp_path),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("arguments", [["demo"], []])
@pytest.mark.parametrize("content", ["", "raise SystemError('supervisord wants something')"])
def test_a_foreign_supervisor_package_is_reported_in_one_sentence(tmp_path, arguments, content):
    (tmp_path / "other" / "supervisor").mkdir(parents=True)
    (tmp_path / "other" / "supervisor" / "__init__.py").write_text(content)
    done = querycrew(tmp_path, *arguments, PYTHONPATH=os.pathsep.join([str(tmp_path / "other"), str(ROOT)]))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "querycrew: error: `import supervisor` " in done.stderr
    assert ("supervisord wants something" if content else "environment of its own") in done.stderr


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            signals.ignore()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
