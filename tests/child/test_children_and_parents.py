"""Children start in any program, without a `__main__` guard, and end with their program."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from supervisor import ChildProcess, Query, SQLite, Supervisor
from tests.child.test_children import is_gone
from tests.conftest import eventually
from tests.support.common import environment, program
from tests.support.faulty_child_database import Elsewhere
from tests.support.health import run_python


def is_over(pid):
    """Return whether a process has ended, even if its parent has not waited for it yet."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.mark.usefixtures("plain_signals")
@pytest.mark.parametrize("work", ["idle", "running", "deaf", "stopped"])
@pytest.mark.parametrize(
    "how", ["return", "exception", "exit", "SIGINT", "SIGTERM", "os._exit", "kill", "kill, with a fork that lives on"]
)
def test_children_end_with_their_program(path, work, how):
    running = subprocess.Popen(
        program("parent", path, work, how),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    fork = None
    try:
        word, *pids = running.stdout.readline().split()
        assert word == "children"
        assert len(pids) == 2
        if "fork" in how:
            fork = int(running.stdout.readline().split()[1])
        if "kill" in how:
            running.kill()
        running.wait(60)
        assert eventually(lambda: all(is_over(pid) for pid in pids), 2.0), "the children did not end within 2 s"
    finally:
        running.kill()
        running.wait()
        running.stdout.close()
        if fork is not None:
            os.kill(fork, signal.SIGKILL)


# --- where they start ---------------------------------------------------------------------

WITHOUT_GUARD = """
import sys
from supervisor import ChildProcess, Query, Supervisor
print(Supervisor.start(ChildProcess(sys.argv[1]), size=2).ask(Query("SELECT 41 + 1"), timeout=30).scalar())
"""


def test_a_script_needs_no_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_GUARD)
    command = [sys.executable, str(script), str(tmp_path / "app.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert (done.stdout, done.stderr, done.returncode) == ("42\n", "", 0)


def test_a_program_that_is_typed_in_has_children_too(tmp_path):
    command = [sys.executable, "-i", "-q", "-"]
    lines = WITHOUT_GUARD.replace("sys.argv[1]", repr(str(tmp_path / "app.db")))
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, timeout=60, check=False, env=environment()
    )
    assert "42" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "program",
    [
        # The program starts the crew in a thread.
        """
        import sys, threading
        from supervisor import ChildProcess, Query, Supervisor
        def work():
            with Supervisor.start(ChildProcess(sys.argv[1]), size=2) as db:
                print(db.ask(Query("SELECT 42")).scalar())
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """,
        # The program starts the crew on an event loop.
        """
        import asyncio, sys
        from supervisor import ChildProcess, Query, Supervisor
        async def main():
            async with Supervisor.start(ChildProcess(sys.argv[1]), size=2) as db:
                print((await db.ask(Query("SELECT 42"), block=False)).scalar())
        asyncio.run(main())
        """,
        # The system drops the exit status of ended children.
        """
        import signal, sys
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        from supervisor import ChildProcess, Query, Supervisor
        with Supervisor.start(ChildProcess(sys.argv[1]), size=2) as db:
            print(db.ask(Query("SELECT 42")).scalar())
        """,
        # Every signal is blocked.
        """
        import signal, sys
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        from supervisor import ChildProcess, Query, Supervisor
        with Supervisor.start(ChildProcess(sys.argv[1]), size=2) as db:
            print(db.ask(Query("SELECT 42")).scalar())
        """,
        # The standard streams are closed.
        """
        import os, sys
        from supervisor import ChildProcess, Query, Supervisor
        out = os.dup(1)
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        with Supervisor.start(ChildProcess(sys.argv[1]), size=2) as db:
            os.write(out, b"%d\\n" % db.ask(Query("SELECT 42")).scalar())
        os._exit(0)
        """,
    ],
    ids=["a thread", "an event loop", "SIGCHLD ignored", "all signals blocked", "no standard streams"],
)
def test_children_start_anywhere(path, program):
    assert run_python(textwrap.dedent(program), path) == "42\n"


def test_children_start_in_a_folder_that_is_gone(path, tmp_path):
    program = """
        import os, sys
        os.mkdir(sys.argv[2]); os.chdir(sys.argv[2]); os.rmdir(sys.argv[2])
        from supervisor import ChildProcess, Query, Supervisor
        with Supervisor.start(ChildProcess(sys.argv[1]), size=2) as db:
            print(db.ask(Query("SELECT 42")).scalar())
    """
    assert run_python(textwrap.dedent(program), path, tmp_path / "gone") == "42\n"


def test_children_start_after_the_program_has_changed_the_path_of_modules(path, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "my_database.py").write_text(
        "from tests.support.faulty_child_database import Elsewhere as Mine"
    )
    program = """
        import sys
        sys.path.insert(0, sys.argv[2])
        import os, supervisor
        del os.environ["PYTHONPATH"]
        from my_database import Mine
        with supervisor.Supervisor.start(supervisor.ChildProcess(Mine(sys.argv[1])), size=2) as db:
            print(db.ask(supervisor.Query("SELECT 42")).scalar())
    """
    assert run_python(textwrap.dedent(program), path, tmp_path / "hidden") == "42\n"


def test_children_restart_after_the_program_has_changed_its_folder(path, tmp_path):
    (tmp_path / "here.py").write_text("from tests.support.faulty_child_database import Elsewhere as Mine")
    program = """
        import os, signal, sys
        os.chdir(sys.argv[2]); sys.path.insert(0, "")
        from here import Mine
        from supervisor import ChildProcess, Query, Status, Supervisor
        with Supervisor.start(ChildProcess(Mine(sys.argv[1])), size=1) as db:
            db.ask(Query("SELECT 1"), timeout=30)
            os.chdir("/")
            os.kill(db.ask(Status()).workers[0].pid, signal.SIGKILL)
            print(db.ask(Query("SELECT 42"), timeout=30).scalar())
    """
    assert run_python("import logging; logging.disable()\n" + textwrap.dedent(program), path, tmp_path) == "42\n"


def test_the_error_says_why_a_child_cannot_begin(path, tmp_path):
    (tmp_path / "gone.py").write_text(
        "from tests.support.faulty_child_database import Elsewhere\nclass Mine(Elsewhere): pass"
    )
    program = """
        import os, sys
        sys.path.insert(0, sys.argv[2])
        from gone import Mine
        from supervisor import ChildProcess
        database = ChildProcess(Mine(sys.argv[1]))
        os.remove(sys.argv[2] + "/gone.py")
        try:
            database.connect()
        except ModuleNotFoundError as error:
            print(error)
    """
    assert run_python(textwrap.dedent(program), path, tmp_path) == "No module named 'gone'\n"


def test_a_fork_while_children_start_keeps_none_of_them_alive(path):
    program = """
        import os, sys, threading, time
        from supervisor import ChildProcess, Status, Supervisor
        db = Supervisor.start(ChildProcess(sys.argv[1]), size=4)
        forks = []
        while len(forks) < 12:
            if not (fork := os.fork()):
                threading.Event().wait()
            forks.append(fork)
            threading.Event().wait(0.004)
        while len(pids := [worker.pid for worker in db.ask(Status()).workers if worker.pid]) < 4:
            pass
        print("children", *pids, "forks", *forks, flush=True)
        threading.Event().wait()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment())
    children, _, forks = running.stdout.readline().removeprefix("children ").partition(" forks ")
    try:
        running.kill()
        running.wait()
        assert eventually(lambda: all(is_over(pid) for pid in children.split()), 2.0)
        assert len(children.split()) == 4
    finally:
        for fork in forks.split():
            os.kill(int(fork), signal.SIGKILL)
        running.stdout.close()


# --- databases that can be sent to a child -------------------------------------------------


def make_database():
    class Local(Elsewhere):
        pass

    return Local("app.db")


@pytest.mark.parametrize(
    ("database", "told"),
    [
        (make_database(), "Local"),
        (Elsewhere(lambda: None), "lambda"),
        (Elsewhere(open), None),
        (5, "must be a path or a database, not int"),
        (ChildProcess(), "not ChildProcess"),
        (Elsewhere, "not type"),
    ],
    ids=["a local class", "a lambda", "a function of a module", "a number", "itself", "a class"],
)
def test_a_database_that_cannot_be_sent_is_refused_at_once(database, told):
    if told is None:
        assert ChildProcess(database).database is database
        return
    with pytest.raises(TypeError, match=told):
        ChildProcess(database)


def test_a_database_of_the_main_program_is_refused_with_the_remedy(path):
    program = """
        from supervisor import ChildProcess, SQLite
        class Mine:
            max_size, name = None, "mine"
            def connect(self): return SQLite().connect()
        try:
            ChildProcess(Mine())
        except TypeError as error:
            print(error)
    """
    told = run_python(textwrap.dedent(program), path)
    assert "Mine is defined in __main__, which a child process does not run" in told
    assert "top level of a module" in told


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"memory_limit": "1 GB"}, TypeError, r"ChildProcess\(memory_limit\) must be a number, not str"),
        ({"memory_limit": True}, TypeError, r"ChildProcess\(memory_limit\) must be a number, not bool"),
        ({"memory_limit": 5}, ValueError, r"ChildProcess\(memory_limit=5\) must be .* or more"),
        ({"start_timeout": -1}, ValueError, r"ChildProcess\(start_timeout=-1\)"),
        ({"start_timeout": 0}, ValueError, r"ChildProcess\(start_timeout=0\)"),
        ({"start_timeout": None}, TypeError, r"ChildProcess\(start_timeout\) must be a number, not NoneType"),
        ({"start_timeout": float("inf")}, ValueError, "finite"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options, kind, told):
    with pytest.raises(kind, match=told):
        ChildProcess("app.db", **options)


def test_a_database_in_children_shows_its_settings_and_no_secret():
    database = ChildProcess(SQLite("file:app.db?key=secret"), memory_limit=1 << 30)
    assert str(database) == f"ChildProcess(SQLite('file:{os.path.abspath('app.db')}'))"
    assert "secret" not in str(database)
    assert ChildProcess("app.db").database == SQLite("app.db")
    assert ChildProcess().max_size == 1
    assert ChildProcess("app.db").max_size is None


def test_a_fork_refuses_and_leaves_the_children_alone(path):
    program = """
        import os, sys, threading
        from supervisor import ChildProcess, Query, Supervisor, SupervisorStopped
        db = Supervisor.start(ChildProcess(sys.argv[1]), size=2)
        assert db.ask(Query("SELECT 1"), timeout=30).scalar() == 1
        for _ in range(5):
            if not (fork := os.fork()):
                try:
                    db.ask(Query("SELECT 2"), timeout=30)
                except SupervisorStopped:
                    os._exit(7)
                os._exit(8)
            assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 7
            assert db.ask(Query("SELECT 3"), timeout=30).scalar() == 3
        print("unhurt", db._dispatcher.restarts)
    """
    assert (
        run_python("import warnings; warnings.simplefilter('ignore')\n" + textwrap.dedent(program), path)
        == "unhurt 0\n"
    )


def test_a_crew_of_children_can_follow_another(path):
    for _ in range(3):
        with Supervisor.start(ChildProcess(path), size=2) as db:
            assert db.ask(Query("SELECT 1"), timeout=30).scalar() == 1
            (pid, *_) = [connection.pid for connection in _connections(db)]
        assert is_gone(pid)


def _connections(db):
    return [handle.connection for handle in db._dispatcher.handles()]
