"""`monitor=True`: other processes of the same user look at a crew, and no client harms it."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

import supervisor
from actors.monitor import folder as folder_module
from actors.monitor import protocol
from actors.system import exit_and_fork
from supervisor import ChildProcess, Query, Status, Supervisor, WorkerDied, offered_crews
from tests.conftest import eventually
from tests.support.common import PATIENCE, RUNAWAY, environment, error_of, kill, thread_of, threads

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no Unix sockets")


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    """Keep the sockets of a test in a folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="qc") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        monkeypatch.setenv("TMPDIR", place)
        yield Path(place)


def sockets(runtime):
    return sorted((runtime / "querycrew").glob("*")) if (runtime / "querycrew").exists() else []


@pytest.fixture
def db(start, path):
    return start(path, size=1, monitor=True)


@pytest.fixture
def seen(db, path):
    """The crew, as another process sees it."""
    [crew] = offered_crews(path)
    return crew


def connect(runtime):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(sockets(runtime)[0]))
    return closing(connection)


def monitor_at(path):
    """Return the monitor of this program that listens there."""
    return next(crew._monitor for crew in exit_and_fork.crews if crew._monitor and crew._monitor.path == str(path))


def answer_of(connection, line):
    """Send bytes and return the answer, or `None` if the crew hangs up."""
    connection.sendall(line)
    with connection.makefile("rb") as lines:
        answer = lines.readline()
    return json.loads(answer) if answer else None


# --- a crew as another process sees it -----------------------------------------------------


def test_a_crew_is_found_by_the_path_of_its_database(seen, path, tmp_path):
    assert (seen.pid, seen.name, seen.path) == (os.getpid(), "app", os.path.realpath(path))
    os.symlink(path, tmp_path / "link.db")
    assert [crew.pid for crew in offered_crews(tmp_path / "link.db")] == [seen.pid]
    assert [crew.pid for crew in offered_crews("app")] == [seen.pid]
    assert [crew.pid for crew in offered_crews()] == [seen.pid]
    assert offered_crews(tmp_path / "other.db") == []


def test_a_crew_that_does_not_offer_itself_is_not_found(start, path, runtime):
    start(path).ask(Query("SELECT 1"))
    assert offered_crews(path) == []
    assert sockets(runtime) == []


def test_a_crew_without_a_monitor_imports_nothing_of_it():
    program = (
        "import sys; from supervisor import Supervisor, Query\n"
        "with Supervisor.start() as db: db.ask(Query('SELECT 1'))\n"
        "print([name for name in sys.modules if 'monitor' in name or name in ('selectors', 'json')])"
    )
    command, options = [sys.executable, "-c", program], {"env": environment(), "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, **options)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_several_crews_of_a_program_have_names_of_their_own(start, path):
    for name in ("one", "two"):
        start(path, name=name, monitor=True)
    assert [crew.name for crew in offered_crews(path)] == ["one", "two"]
    start(name="none", monitor=True)
    assert [crew.path for crew in offered_crews("none")] == [None]


def test_the_status_is_that_of_the_crew(db, seen):
    db.ask(Query("CREATE TABLE t(a)"))
    mine, theirs = db.ask(Status()), seen.status()
    assert (theirs.answered, theirs.database, theirs.state) == (mine.answered, mine.database, "up")
    assert [worker.id for worker in theirs.workers] == [worker.id for worker in mine.workers]
    assert theirs.runs_since(mine).count == 0
    assert theirs.run == mine.run


def test_no_parameter_leaves_the_program(db, seen):
    db.ask(Query(f"{RUNAWAY} WHERE i <> ?", ("hunter2",)), block=False)
    assert eventually(lambda: seen.status().running == 1)
    db.ask(Query("SELECT ?", ("hunter2",)), block=False)
    assert eventually(lambda: seen.status().waiting)
    status = seen.status()
    assert "RECURSIVE" in status.workers[0].job
    assert "SELECT ?" in status.waiting[0].request
    assert "hunter2" not in repr(status)
    assert db.cancel(status.workers[0].jobs[0])


def test_long_texts_are_shortened(db, seen):
    db.ask(Query(RUNAWAY + " -- " + "x" * 100_000), block=False)
    assert eventually(lambda: seen.status().running == 1)
    assert len(seen.status().workers[0].job) < 300
    assert seen.cancel(seen.status().workers[0].jobs[0])


def test_a_job_is_cancelled_from_outside(db, seen):
    reply = db.ask(Query(RUNAWAY), block=False)
    assert eventually(lambda: seen.status().running == 1)
    number = seen.status().workers[0].jobs[0]
    assert seen.cancel(number) is True
    assert type(error_of(reply)).__name__ == "QueryCancelled"
    assert seen.cancel(number) is False
    with pytest.raises(LookupError, match="no job has the id 99"):
        seen.cancel(99)


def test_a_child_is_killed_from_outside_and_replaced(start, path):
    db = start(ChildProcess(str(path)), size=1, monitor=True)
    db.wait(timeout=PATIENCE)
    reply = db.ask(Query(RUNAWAY), block=False)
    [seen] = offered_crews(path)
    assert eventually(lambda: seen.status().running == 1)
    [worker] = seen.status().workers
    assert worker.memory is None or worker.memory > 0
    seen.kill(worker.id)
    assert isinstance(error_of(reply), WorkerDied)
    assert db.ask(Query("SELECT 1")).scalar() == 1
    assert seen.status().restarts == 1
    with pytest.raises(LookupError, match=f"crew 'app' has no worker {worker.id}"):
        seen.kill(worker.id)


def test_a_thread_cannot_be_killed_and_says_so(db, seen):
    db.wait(timeout=PATIENCE)
    with pytest.raises(PermissionError, match="worker 1 has no process of its own, so it cannot be killed"):
        seen.kill(1)
    assert db.ask(Query("SELECT 1")).scalar() == 1


# --- the end ------------------------------------------------------------------------------


def test_the_end_of_a_crew_removes_its_socket(db, seen, runtime):
    assert len(sockets(runtime)) == 1
    db.stop()
    assert sockets(runtime) == []
    with pytest.raises(ConnectionError, match="the crew has ended"):
        seen.status()


def test_a_client_that_is_connected_does_not_hold_up_the_end(db, runtime):
    with connect(runtime) as connection:
        connection.sendall(b'{"v": 1, ')
        db.stop()
        with suppress(ConnectionResetError):
            assert connection.recv(10) == b""


def test_a_dropped_crew_removes_its_socket(path, runtime):
    ref = Supervisor.start(path, monitor=True)
    with pytest.warns(ResourceWarning, match="was dropped without stop"):
        del ref
    assert eventually(lambda: sockets(runtime) == [])


def test_a_supervisor_that_is_killed_removes_its_socket(db, seen, runtime):
    db.wait(timeout=PATIENCE)
    kill(thread_of(db))
    db.actor_inbox.notify()  # the exception hits the thread at its next step
    assert eventually(lambda: sockets(runtime) == [])


def test_a_monitor_that_is_killed_harms_nothing(db, seen, runtime):
    [monitor] = threads("-monitor")
    kill(monitor)
    with socket.socket(socket.AF_UNIX) as waker:  # the exception hits the thread at its next step
        waker.connect(str(sockets(runtime)[0]))
        assert eventually(lambda: not monitor.is_alive())
    assert sockets(runtime) == []
    assert db.ask(Query("SELECT 1")).scalar() == 1
    db.stop()


PROGRAM = """
import os, sys
from supervisor import Supervisor, Query
db = Supervisor.start(sys.argv[1], size=1, monitor=True)
db.ask(Query("SELECT 1"))
print("up", flush=True)
{}
"""


def program(path, then):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(then), path],
        env={**environment(), **{name: os.environ[name] for name in ("XDG_RUNTIME_DIR", "TMPDIR")}},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_end_of_a_program_leaves_nothing(path, runtime):
    with program(path, "") as process:
        assert process.wait(PATIENCE) == 0
    assert sockets(runtime) == []


@pytest.mark.parametrize("finder", ["a search", "the start of a crew"])
def test_the_socket_of_a_killed_program_is_removed(start, path, runtime, finder):
    with program(path, "input()") as process:
        assert process.stdout.readline() == "up\n"
        [crew] = offered_crews(path)
        assert crew.pid == process.pid
        assert crew.status().answered == 1
        process.kill()
    assert len(sockets(runtime)) == 1
    if finder == "a search":
        assert offered_crews() == []
        assert sockets(runtime) == []
    else:
        start(path, monitor=True)
        assert all(str(os.getpid()) in found.name for found in sockets(runtime))


def test_the_child_of_a_fork_has_no_part_in_it(path, runtime):
    then = """
child = os.fork()
if not child:
    import socket, stat
    fds = [fd for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")]
    print([fd for fd in fds if stat.S_ISSOCK(os.fstat(fd).st_mode)], flush=True)
    db.stop()
    os._exit(0)
os.waitpid(child, 0)
input()
"""
    with program(path, then) as process:
        assert process.stdout.readline() == "up\n"
        if os.path.isdir("/proc/self/fd"):
            assert process.stdout.readline() == "[]\n"
        [crew] = offered_crews(path)
        assert crew.status().answered == 1
        process.communicate("\n")
    assert sockets(runtime) == []


def test_a_program_that_is_stopped_times_out_and_is_named(path):
    with program(path, "input()") as process:
        assert process.stdout.readline() == "up\n"
        [crew] = offered_crews(path)
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError, match="does not answer"):
                crew.status()
            with pytest.raises(TimeoutError, match=f"process {process.pid} offers a crew, and does not answer"):
                offered_crews(path)
        finally:
            process.send_signal(signal.SIGCONT)
        assert crew.status().answered == 1
        process.communicate("\n")


# --- safety -------------------------------------------------------------------------------


def test_only_the_user_can_reach_the_socket(db, runtime):
    folder = os.lstat(runtime / "querycrew")
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid) == (0o700, os.geteuid())
    assert stat.S_IMODE(os.lstat(sockets(runtime)[0]).st_mode) == 0o600


def unsafe(runtime, how):
    folder = runtime / "querycrew"
    if how == "open":
        folder.mkdir()
        folder.chmod(0o755)
    elif how == "a link":
        (runtime / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(runtime / "elsewhere")
    elif how == "a file":
        folder.write_text("")
    elif how == "in an open folder":
        runtime.chmod(0o777)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("open", r"is open to other users \(mode 755\): chmod 700 makes it safe"),
        ("a link", "is a symbolic link"),
        ("a file", "is no folder"),
        ("in an open folder", r"can be changed by other users \(mode 777\)"),
    ],
)
def test_an_unsafe_folder_is_refused_before_the_crew_starts(path, runtime, monkeypatch, how, why):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    unsafe(runtime, how)
    with pytest.raises(RuntimeError, match=rf"finds no safe folder for its socket: .*{why}"):
        Supervisor.start(path, monitor=True)
    assert not path.exists()
    assert offered_crews() == []


def test_a_folder_of_another_user_is_refused(path, runtime, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    (runtime / "querycrew").mkdir(mode=0o700)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(RuntimeError, match="belongs to another user"):
        Supervisor.start(path, monitor=True)
    assert offered_crews() == []


def test_nothing_is_made_in_the_folder_of_another_user(path, runtime, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    mine = os.geteuid()
    os.chown(runtime, 12345, -1) if mine == 0 else monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    try:
        with pytest.raises(RuntimeError, match="belongs to another user"):
            Supervisor.start(path, monitor=True)
        assert list(runtime.iterdir()) == []
    finally:
        os.chown(runtime, mine, -1)


def test_the_temporary_directory_is_the_second_choice(start, path, runtime, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "missing"))
    start(path, monitor=True)
    assert len(list((runtime / f"querycrew-{os.geteuid()}").iterdir())) == 1
    assert len(offered_crews(path)) == 1


def test_a_relative_path_is_no_choice(path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "here")
    monkeypatch.setenv("TMPDIR", "there")
    with pytest.raises(RuntimeError, match="is an absolute path"):
        Supervisor.start(path, monitor=True)


def test_a_path_that_is_too_long_for_a_socket_is_no_choice(path, runtime, monkeypatch):
    long = runtime / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    with pytest.raises(RuntimeError, match="AF_UNIX path too long"):
        Supervisor.start(path, monitor=True)


def test_a_process_of_another_user_gets_no_answer(db, seen, runtime, monkeypatch):
    monkeypatch.setattr("actors.monitor.monitor.is_mine", lambda _: False)
    with connect(runtime) as connection:
        assert connection.recv(10) == b""
    monkeypatch.undo()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert seen.status().state == "up"


def test_a_socket_of_another_user_is_not_trusted(seen, monkeypatch):
    monkeypatch.setattr("actors.monitor.offered.is_mine", lambda _: False)
    with pytest.raises(ConnectionError, match="belongs to another user"):
        seen.status()


HELLO = {"pid": 7, "name": "other", "database": "SQLite", "path": None}


@pytest.mark.parametrize(
    "change",
    [{"pid": "7"}, {"pid": float("inf")}, {"name": 7}, {"database": None}, {"path": 7}],
    ids=str,
)
def test_a_socket_of_another_program_hides_no_crew(seen, path, runtime, change):
    def answer(hello):
        with listener.accept()[0] as connection:  # a search asks first whether a program listens
            assert connection.recv(1) == b""
        with listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(protocol.line_of(ok=hello))

    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as other:
        listener.bind(str(runtime / "querycrew" / "7-1.sock"))
        listener.listen()
        other.submit(answer, HELLO)
        assert {crew.name for crew in offered_crews()} == {seen.name, "other"}
        other.submit(answer, {**HELLO, **change})
        assert [crew.name for crew in offered_crews()] == [seen.name]


def test_the_user_at_the_other_end_is_known():
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        assert folder_module.is_mine(here)


def test_a_system_without_unix_sockets_says_so(path, monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(RuntimeError, match="needs Unix sockets"):
        Supervisor.start(path, monitor=True)
    with pytest.raises(RuntimeError, match="needs Unix sockets"):
        offered_crews()
    assert not path.exists()


def test_monitor_is_a_bool(path):
    with pytest.raises(TypeError, match="monitor"):
        Supervisor.start(path, monitor="yes")


def test_a_program_that_has_no_thread_for_the_monitor_leaves_no_socket(path, runtime, monkeypatch):
    def refuse(thread):
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr("actors.monitor.monitor.CrewThread.start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Supervisor.start(path, monitor=True)
    assert sockets(runtime) == []


# --- hostile clients ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\n", "the line is no JSON object"),
        (b"status\n", "the line is no JSON object"),
        (b"\xff\xfe\n", "the line is no JSON object"),
        (b"[" * 4000 + b"\n", "the line is no JSON object"),
        (b"[1]\n", "the line is no JSON object"),
        (b"{}\n", "another version"),
        (b'{"v": 2, "do": "status"}\n', "another version"),
        (b'{"v": 1}\n', "no such command"),
        (b'{"v": 1, "do": "quit"}\n', "no such command"),
        (b'{"v": 1, "do": "cancel"}\n', "no such command"),
        (b'{"v": 1, "do": "cancel", "job": "1"}\n', "no such command"),
        (b'{"v": 1, "do": "cancel", "job": true}\n', "no such command"),
        (b'{"v": 1, "do": "cancel", "job": ' + b"9" * 4000 + b"}\n", "no job has the id 999"),
        (b'{"v": 1, "do": "kill", "worker": -1}\n', "no worker -1"),
        (b'{"v": 1, "do": "kill", "worker": [1]}\n', "no such command"),
    ],
)
def test_a_wrong_request_gets_an_error_and_the_next_one_an_answer(db, runtime, line, error):
    with connect(runtime) as connection:
        assert error in answer_of(connection, line)["error"]
        assert answer_of(connection, b'{"v": 1, "do": "hello"}\n')["ok"]["pid"] == os.getpid()


def test_requests_that_come_together_are_answered_in_order(db, runtime):
    with connect(runtime) as connection:
        connection.sendall(b'{"v": 1, "do": "hello"}\n' * 3 + b'{"v": 1, "do": "status"}\n{"v": 1, ')
        with connection.makefile("rb") as lines:
            answers = [json.loads(lines.readline()) for _ in range(4)]
        assert ["pid" in answer["ok"] for answer in answers] == [True, True, True, False]
        assert answer_of(connection, b'"do": "hello"}\n')["ok"]["name"] == "app"


def test_a_client_that_sends_megabytes_is_hung_up_on(db, seen, runtime, monkeypatch):
    monkeypatch.setattr("actors.monitor.monitor._PATIENCE", 1e6)
    monkeypatch.setattr("actors.monitor.monitor._ROUND", 0.0)
    with connect(runtime) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(50):
            connection.sendall(b"x" * 100_000)
    assert seen.status().state == "up"


def test_a_client_that_reads_nothing_keeps_at_most_one_request_and_one_answer(db, seen, runtime, monkeypatch):
    monkeypatch.setattr("actors.monitor.monitor._ROUND", 0.0)
    with connect(runtime) as connection:
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                connection.send(b'{"v": 1, "do": "status"}\n' * 100)
        monitor = monitor_at(sockets(runtime)[0])
        assert eventually(lambda: any(client.outgoing for client in monitor._clients.values()))
        assert seen.status().state == "up"
        for client in list(monitor._clients.values()):
            assert len(client.incoming) < 2 * protocol.LONGEST_REQUEST
            assert client.outgoing.count(b"\n") <= 1
        assert db.ask(Query("SELECT 1")).scalar() == 1


def test_a_client_that_sends_half_a_line_makes_room_after_a_time(db, runtime, monkeypatch):
    monkeypatch.setattr("actors.monitor.monitor._PATIENCE", 0.0)
    with connect(runtime) as connection:
        connection.sendall(b'{"v": 1, ')
        with suppress(ConnectionResetError):
            assert connection.recv(10) == b""


def test_a_thousand_connections_do_not_lock_out_others(db, seen, runtime):
    with ExitStack() as stack:
        for number in range(1000):
            connection = socket.socket(socket.AF_UNIX)
            stack.enter_context(closing(connection))
            connection.settimeout(PATIENCE)
            while True:
                try:
                    connection.connect(str(sockets(runtime)[0]))
                except BlockingIOError:
                    continue
                break
            if number % 100 == 0:
                assert len(monitor_at(sockets(runtime)[0])._clients) <= 16
                assert seen.status().state == "up"
        assert seen.status().state == "up"
        assert db.ask(Query("SELECT 1")).scalar() == 1


def test_many_processes_may_look_at_once(db, seen):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(seen.status().state)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["up"] * 20


def test_a_crew_that_cannot_answer_says_so_and_goes_on(db, seen, monkeypatch):
    def fail(dispatcher):
        raise OSError("secret")

    monkeypatch.setattr("actors.dispatch.dispatcher.Dispatcher.status", fail)
    with pytest.raises(ValueError, match=r"^the crew failed to answer \(OSError\)$"):
        seen._call(do="status")
    monkeypatch.undo()


# --- the protocol -------------------------------------------------------------------------


def test_a_status_survives_the_way_there_and_back(db):
    db.ask(Query("CREATE TABLE t(a)"))
    db.ask(Query(RUNAWAY), block=False)
    assert eventually(lambda: db.ask(Status()).running == 1)
    db.ask(Query("SELECT 1"), block=False)
    status = db.ask(Status())
    line = protocol.line_of(ok=protocol.status_fields(status))
    assert line.count(b"\n") == 1
    assert protocol.load_status(protocol.object_of(line)["ok"]) == status
    assert db.cancel(status.workers[0].jobs[0])


HUGE = pytest.param({"wait": {"count": 1, "p50": 10**400, "p95": 0.0, "p99": 0.0, "max": 0.0}}, id="a huge number")


@pytest.mark.parametrize(
    "change",
    [
        {"name": 7},
        {"workers": [1]},
        {"workers": None},
        {"queued": "7"},
        {"queued": True},
        {"wait": {}},
        {"run": 3},
        HUGE,
    ],
    ids=str,
)
def test_a_status_of_the_wrong_shape_is_refused(db, change):
    fields = json.loads(protocol.line_of(ok=protocol.status_fields(db.ask(Status()))))["ok"]
    protocol.load_status({**fields, "a later field": 1})
    with pytest.raises(ValueError, match=r"is no|needs"):
        protocol.load_status({**fields, **change})


def test_a_large_crew_fits_into_an_answer(db):
    status = db.ask(Status())
    fields = {name: getattr(status, name) for name in status._fields}
    worker = supervisor.WorkerStatus(1, "busy", "Query('" + "\u732b" * 400 + "')", 1.0, jobs=tuple(range(128)))
    large = supervisor.CrewStatus(**{**fields, "workers": (worker,) * 5000, "warnings": ("\x07" * 10_000,) * 5000})
    assert len(protocol.line_of(ok=protocol.status_fields(large))) <= protocol.LONGEST_ANSWER
