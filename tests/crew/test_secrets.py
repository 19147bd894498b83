"""The crew shows a parameter only to its caller, and the key of a database to no one."""

import queue
import threading
import traceback
from functools import partial

import apsw
import pykka
import pytest

from supervisor import (
    Backup,
    Call,
    ChildProcess,
    DatabaseUnavailable,
    Query,
    RestartPolicy,
    Script,
    SQLite,
    Status,
    Stream,
    Subscribe,
    Transaction,
    WorkerDied,
    WorkerLost,
)
from tests.conftest import child_processes, eventually
from tests.support.call_functions import harmful, raise_it
from tests.support.common import PATIENCE, error_of, up
from tests.support.fakes import FakeDatabase

SECRET = "hunter2"

KINDS = {
    "thread": lambda path: SQLite(path, on_connect=harmful),
    "child": lambda path: ChildProcess(SQLite(path, on_connect=harmful)),
    "memory": lambda path: SQLite(on_connect=harmful),
}


def shown(error):
    """Return the whole text of an error, with its causes and notes."""
    return "".join(
        [repr(error), str(error), repr(error.__cause__), str(error.__cause__), *traceback.format_exception(error)]
    )


def looks(db):
    """Return every text that a crew shows about itself."""
    status = db.ask(Status())
    return "".join([repr(db), str(db), repr(status), str(status), *(thread.name for thread in threading.enumerate())])


# --- parameters ---------------------------------------------------------------------------


REQUESTS = {
    "json": Query("SELECT json_extract('{}', ?)", (SECRET,)),
    "full text": Query("SELECT * FROM texts WHERE texts MATCH ?", (f'"{SECRET}',)),
    "by name": Query("SELECT json_extract('{}', :it)", {"it": SECRET}),
    "many": Query("INSERT INTO kept VALUES (json_extract('{}', ?))", many=[(SECRET,)]),
    "written": Query("INSERT INTO kept VALUES (json_extract('{}', ?))", (SECRET,)),
    "a function": Query("SELECT raise_ValueError(?)", (SECRET,)),
    "a transaction": Transaction([Query("SELECT 1"), Query("SELECT json_extract('{}', ?)", (SECRET,))]),
    "a call": Call(raise_it, ValueError, SECRET),
    "a reading call": Call(raise_it, ValueError, SECRET, readonly=True),
    "a function that exits": Query("SELECT raise_SystemExit(?)", (SECRET,)),
    "a function that exits in a write": Query("INSERT INTO kept VALUES (raise_SystemExit(?))", (SECRET,)),
    "a call that exits": Call(raise_it, SystemExit, SECRET),
    "a lost connection": Query("SELECT raise_CorruptError(?)", (SECRET,)),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def crew(start, path, kind, caplog):
    """Make a crew whose replacements come late, so that a death suspends the crew."""
    caplog.set_level("DEBUG")
    db = start(KINDS[kind](path), size=1, restart=RestartPolicy(max_restarts=0, within=60.0))
    db.ask(Script("CREATE TABLE kept(number); CREATE VIRTUAL TABLE texts USING fts5(it)"), timeout=PATIENCE)
    return db


@pytest.mark.parametrize("name", REQUESTS)
def test_a_parameter_is_shown_only_to_its_caller(crew, name, caplog):
    heard = queue.Queue()
    listener = Listener.start(heard)
    crew.ask(Subscribe(listener))
    request = REQUESTS[name]
    crew.tell(request)
    assert eventually(lambda: "told_request_failed" in caplog.text)
    reply = crew.ask(Query("SELECT 1"), block=False)
    other = reply.exception(PATIENCE)  # refused with the reason, if the worker has died
    listener.stop()
    texts = [looks(crew), repr(request), str(request), *map(repr, heard.queue), *map(str, heard.queue)]
    texts += [str(event.cause) for event in heard.queue if isinstance(event, WorkerLost)]
    assert SECRET not in "".join([*texts, caplog.text, "" if other is None else shown(other)])
    assert other is None or "exits" in name or "lost" in name


class Listener(pykka.ThreadingActor):
    use_daemon_thread = True

    def __init__(self, heard):
        super().__init__()
        self.heard = heard

    def on_receive(self, message):
        self.heard.put(message)


@pytest.mark.parametrize("error", [SystemExit, apsw.CorruptError])
@pytest.mark.parametrize("kind", ["thread", "child"])
def test_a_death_in_a_shared_commit_shows_no_parameter_to_the_other_callers(crew, error, caplog):
    with crew.transaction() as held:
        held.ask(Query("INSERT INTO kept VALUES (1)"))
        first = crew.ask(Query("INSERT INTO kept VALUES (2)"), block=False)
        culprit = crew.ask(Query(f"INSERT INTO kept VALUES (raise_{error.__name__}(?))", (SECRET,)), block=False)
    errors = [error_of(first), error_of(culprit)]
    assert [type(each) for each in errors] == [WorkerDied, WorkerDied]
    assert type(errors[0].__cause__) is error
    assert SECRET not in shown(errors[0]) + caplog.text + looks(crew)


def test_the_caller_of_a_job_that_ended_its_worker_gets_the_whole_error(crew):
    error = error_of(crew.ask(Query("SELECT raise_SystemExit(?)", (SECRET,)), block=False))
    assert isinstance(error, WorkerDied)
    assert SECRET in str(error)
    assert error.__cause__.args == (SECRET,)


def test_a_stream_and_a_session_that_fail_show_no_parameter(crew, caplog):
    texts = []
    request = Stream("SELECT json_extract('{}', ?)", (SECRET,))
    with pytest.raises(apsw.SQLError):
        list(crew.ask(request))
    if crew.ask(Status()).size:
        with crew.transaction() as session, pytest.raises(apsw.SQLError):
            session.ask(Query("SELECT json_extract('{}', ?)", (SECRET,)))
        texts = [repr(session)]
    assert SECRET not in "".join([*texts, repr(request), str(request), looks(crew), caplog.text])


def test_a_callback_and_a_wrap_that_raise_are_logged_without_their_text(crew, caplog):
    def raise_secret(outcome):
        raise ValueError(SECRET)

    heard = queue.Queue()
    listener = Listener.start(heard)
    reply = crew.ask(Query("SELECT 1"), block=False)
    reply.add_done_callback(raise_secret)
    reply.pipe_to(listener, wrap=raise_secret)
    assert heard.get(timeout=PATIENCE).error.args == (SECRET,)
    listener.stop()
    assert "callback_failed error=ValueError(test_secrets.py:" in caplog.text
    assert "wrap_failed" in caplog.text
    assert SECRET not in caplog.text


def test_no_repr_of_a_request_shows_the_values_that_its_function_holds():
    held = partial(print, SECRET)
    requests = [Call(held), Call(Keeper(SECRET).call), Backup("copy.db", progress=held), Call(print, SECRET)]
    assert SECRET not in repr(requests) + "".join(map(str, requests))


class Keeper:
    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return f"Keeper({self.value})"

    def call(self, connection):
        return None


class Unspeakable(BaseException):
    """An error whose class needs an argument, and whose text raises an error."""

    def __new__(cls, value):
        return super().__new__(cls, value)

    def __str__(self):
        raise ValueError(SECRET)


def test_an_error_that_cannot_be_shown_is_named_by_its_class(start, caplog):
    db = start(FakeDatabase({"bad": Unspeakable(5)}), size=1, restart=RestartPolicy(max_restarts=0, within=60.0))
    error = error_of(db.ask(Query("bad"), block=False))
    assert isinstance(error, WorkerDied)
    assert "died of Unspeakable, while" in str(error)
    error = error_of(db.ask(Query("next"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert "RuntimeError: Unspeakable" in str(error)
    assert SECRET not in caplog.text


# --- databases ----------------------------------------------------------------------------


CAN_BE_OPENED = {
    "a query": lambda path: SQLite(f"file:{path}?key={SECRET}"),
    "a pragma": lambda path: SQLite(path, pragmas={"key": SECRET}),
    "SQL": lambda path: SQLite(path, on_connect=f"PRAGMA key = '{SECRET}'"),
    "a function": lambda path: SQLite(path, on_connect=partial(begin_with, SECRET)),
}
CANNOT_BE_OPENED = {
    "a query": lambda path: SQLite(f"file:{path}/none/app.db?key={SECRET}"),
    "a query of a file that is only read": lambda path: SQLite(f"file:{path}?key={SECRET}", readonly=True),
    "a query with a strange mode": lambda path: SQLite(f"file:{path}?mode={SECRET}"),
    "a pragma": lambda path: SQLite(path, pragmas={"encoding": SECRET}),
    "SQL that is cut off": lambda path: SQLite(path, on_connect=f"PRAGMA key = '{SECRET}"),
    "SQL that is quoted badly": lambda path: SQLite(path, on_connect=f"PRAGMA key = 'it's {SECRET}'"),
    "SQL that names no column": lambda path: SQLite(path, on_connect=f"SELECT {SECRET}"),
    "SQL that fails": lambda path: SQLite(path, on_connect=f"SELECT json_extract('{{}}', '{SECRET}')"),
    "SQL that attaches": lambda path: SQLite(path, on_connect=f"ATTACH '/none/{SECRET}' AS other"),
}


def begin_with(key, connection):
    """Stand for a user's function that sets a key."""


def command_lines():
    """Return the command lines of all child processes."""
    lines = []
    for pid in child_processes():
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            lines.append(file.read())
    return "".join(lines)


@pytest.fixture(params=["thread", "child"])
def on(request):
    return {"thread": lambda database: database, "child": ChildProcess}[request.param]


@pytest.mark.parametrize("name", CAN_BE_OPENED)
def test_no_key_of_a_database_is_shown(start, path, on, name, caplog):
    caplog.set_level("DEBUG")
    database = on(CAN_BE_OPENED[name](path))
    db = start(database, size=1)
    assert eventually(lambda: up(db))
    texts = [looks(db), repr(database), str(database), database.name, *map(repr, database.lanes()), command_lines()]
    db.tell(Query("SELECT nonsense"))
    db.tell(Backup(path.parent / "none" / "copy.db"))
    db.stop()
    assert caplog.text.count("told_request_failed") == 2
    assert SECRET not in "".join([*texts, caplog.text])


@pytest.mark.parametrize("name", CANNOT_BE_OPENED)
def test_no_key_of_a_database_that_cannot_be_opened_is_shown(start, path, on, name, caplog):
    caplog.set_level("DEBUG")
    db = start(on(CANNOT_BE_OPENED[name](path)), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert isinstance(error.__cause__, apsw.Error)
    assert SECRET not in "".join([shown(error), looks(db), caplog.text])


def test_the_drivers_text_around_the_hidden_words_is_kept(start, path):
    db = start(CANNOT_BE_OPENED["SQL that names no column"](path), size=1)
    assert "no such column: …" in str(error_of(db.ask(Query("SELECT 1"), block=False)))


class Vault:
    """A database of the user. Its `repr` shows the secret that its text hides."""

    name, max_size = "vault", None

    def __str__(self):
        return "Vault()"

    def __repr__(self):
        return f"Vault({SECRET})"

    def connect(self):
        raise NotImplementedError


def test_a_child_process_shows_its_database_by_the_text_that_hides_secrets():
    database = ChildProcess(Vault(), memory_limit=1 << 30)
    assert repr(database) == "ChildProcess(Vault(), memory_limit=1073741824, start_timeout=20.0)"
    assert str(database) == "ChildProcess(Vault())"


def test_the_repr_of_a_database_shows_its_other_settings():
    database = SQLite("/app.db", synchronous="normal", pragmas={"cache_size": 7, "key": SECRET}, on_connect=begin_with)
    assert repr(database) == (
        "SQLite(path='/app.db', journal_mode='wal', synchronous='normal', foreign_keys=True, busy_timeout=5.0, "
        "pragmas={cache_size: …, key: …}, on_connect=begin_with, readonly=False, create=True, "
        "untrusted=False, sandbox=False)"
    )
