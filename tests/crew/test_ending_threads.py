"""A program whose main thread ends while other threads wait for a crew ends within a second."""

import sys

import pytest

from actors.system import exit_and_fork as process
from tests.crew.test_process_end import is_closed_properly, rows
from tests.support.common import RUNAWAY, run_program
from tests.support.health import run_python

UNDONE = "SupervisorStopped False"
ENDS = {
    "ask": UNDONE,
    "get": UNDONE,
    "as_future": UNDONE,
    "await": UNDONE,
    "callback": UNDONE,
    "stream": UNDONE,
    "transaction": UNDONE,
    "stop": "returned",
    "shutdown": "returned",
    "queued": UNDONE,
}
CASES = [(where, what, "threads") for where in ("thread", "executor") for what in ENDS]
CASES += [(where, "ask", kind) for where in ("early executor", "to_thread") for kind in ("threads", "children")]
CASES += [(where, what, "children") for where in ("thread", "executor") for what in ("ask", "queued", "transaction")]


@pytest.mark.parametrize(("where", "what", "kind"), CASES)
def test_the_program_ends_although_another_thread_waits_for_an_endless_query(path, where, what, kind):
    done = run_program("ending_threads", where, what, kind, path)
    assert done.returncode == 0, done.stderr
    times = 3 if "executor" in where else 1
    lines = done.stdout.splitlines()
    assert lines[0] == "the main thread ends", done.stdout
    assert lines[1] == ENDS[what]
    assert len(lines) == 1 + times
    assert {line.split()[0] for line in lines[2:]} <= {"SupervisorStopped", "returned"}
    assert is_closed_properly(path)


GOES_ON = """
import sys, threading
from supervisor import Query, Supervisor

db = Supervisor.start(sys.argv[1], size=1)
db.ask(Query("CREATE TABLE t(x)"))

def work():
    threading.main_thread().join()
    for number in range(20):
        db.ask(Query("INSERT INTO t VALUES (?)", (number,)))
    db.stop()
    print("done")

threading.Thread(target=work).start()
"""


def test_a_thread_with_short_jobs_can_use_the_crew_after_the_main_thread_has_ended(path):
    assert run_python(GOES_ON, path) == "done\n"
    assert rows(path) == [(20, 0, 19)]


STARTS_LATE = """
import sys, threading

def work():
    threading.main_thread().join()
    from supervisor import Query, Supervisor, SupervisorStopped
    db = Supervisor.start(sys.argv[1], size=1)
    try:
        db.ask(Query(sys.argv[2]))
    except SupervisorStopped as error:
        print(error.executed)
    try:
        db.ask(Query("SELECT 1"))
    except SupervisorStopped as error:
        print(error)

threading.Thread(target=work).start()
"""


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="Python 3.12 starts no thread once the main thread has ended"
)
def test_a_crew_started_after_the_main_thread_has_ended_ends_too_and_says_why(path):
    executed, text = run_python(STARTS_LATE, path, RUNAWAY).splitlines()
    assert executed == "False"
    assert "the main thread has ended, and a job was not done 0.5 seconds later" in text


def test_without_the_private_hook_of_threading_crews_still_end_with_the_program(path):
    program = """
import sys, threading
del threading._register_atexit
from supervisor import Query, Supervisor
db = Supervisor.start(sys.argv[1], size=1)
print(db.ask(Query("SELECT 1")).scalar())
"""
    assert run_python(program, path) == "1\n"
    assert is_closed_properly(path)


def test_the_hook_is_registered_again_once_executors_are_imported_and_only_then(monkeypatch):
    registered = []
    monkeypatch.setattr(process, "_register", lambda: registered.append(True))
    process.heed_executors()
    registered.clear()
    process.heed_executors()
    assert not registered
    monkeypatch.setattr(process._MainThread, "executors", None)
    import concurrent.futures.thread

    assert concurrent.futures.thread.ThreadPoolExecutor is not None
    process.heed_executors()
    process.heed_executors()
    assert registered == [True]
