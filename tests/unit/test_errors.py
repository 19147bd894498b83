"""The type and the data of every error tell how the statement ended."""

import concurrent.futures
import pickle
from dataclasses import dataclass

import apsw
import pykka
import pytest

from actors.values import errors
from actors.values.errors import (
    ConnectionLost,
    DatabaseUnavailable,
    QuerycrewError,
    QueueFull,
    SupervisorStopped,
    TransactionLeftOpen,
    WorkerDied,
    WouldDeadlock,
)
from supervisor import Call, ChildProcess, Query, Script, SQLite, Stream, Supervisor, Transaction
from tests.support import call_functions
from tests.support.fakes import FakeDatabase

CALLERS_GET = [DatabaseUnavailable, QueueFull, SupervisorStopped, TransactionLeftOpen, WorkerDied, WouldDeadlock]


@pytest.mark.parametrize("error", CALLERS_GET)
def test_an_error_for_callers_is_a_querycrew_error(error):
    assert issubclass(error, QuerycrewError)


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (DatabaseUnavailable, ConnectionError),
        (SupervisorStopped, pykka.ActorDeadError),
        (WorkerDied, pykka.ActorDeadError),
        (WouldDeadlock, RuntimeError),
    ],
)
def test_errors_are_caught_by_the_names_that_programs_know(error, also):
    assert issubclass(error, also)


@pytest.mark.parametrize(
    ("error", "executed"),
    [(error, None if error is WorkerDied else False) for error in [QuerycrewError, *CALLERS_GET]],
)
def test_an_error_says_whether_the_statement_took_effect(error, executed):
    assert error("text").executed is executed


def test_the_data_of_one_error_does_not_change_the_next():
    error = SupervisorStopped("interrupted")
    error.executed = None
    assert SupervisorStopped("refused").executed is False


def test_a_lost_connection_is_an_error_for_the_worker_only():
    assert not issubclass(ConnectionLost, QuerycrewError)


@pytest.mark.parametrize("error", [*CALLERS_GET, ConnectionLost])
def test_an_error_can_be_pickled_with_its_data(error):
    sent = error("what happened")
    sent.executed = None
    arrived = pickle.loads(pickle.dumps(sent))
    assert type(arrived) is error
    assert str(arrived) == "what happened"
    assert arrived.executed is None


def test_every_error_is_listed_and_explained():
    for name in errors.__all__:
        assert getattr(errors, name).__doc__
    assert {error.__name__ for error in [*CALLERS_GET, ConnectionLost, QuerycrewError]} <= set(errors.__all__)


def test_an_error_works_in_an_executors_future_too():
    future = concurrent.futures.Future()
    future.set_exception(WorkerDied("gone"))
    with pytest.raises(pykka.ActorDeadError, match="gone"):
        future.result()


# --- one clause for all -------------------------------------------------------------------


@dataclass(frozen=True)
class Telling(FakeDatabase):
    """A database that names the errors of its driver."""

    errors: object = (OSError, LookupError)


@pytest.fixture(params=["threads", "children", "memory"])
def db(request, start, path):
    crew = start({"threads": path, "children": ChildProcess(path), "memory": None}[request.param], size=1)
    crew.ask(Script("CREATE TABLE kept(number UNIQUE); INSERT INTO kept VALUES (1)"))
    return crew


TAKEN = "INSERT INTO kept VALUES (1)"


@pytest.mark.parametrize(
    "request_of_an_error",
    [
        Query("SELECT missing FROM nowhere"),
        Query(TAKEN),
        Query("INSERT INTO kept VALUES (?)", many=[(2,), (1,)]),
        Query("SELECT ?"),
        Query("SELECT 1", timeout=0.0),
        Query("BEGIN"),
        Script(f"SELECT 1; {TAKEN}"),
        Transaction([Query("SELECT 1"), Query(TAKEN)]),
        Transaction([Query("ROLLBACK")]),
        Stream("SELECT missing FROM nowhere"),
        Call(call_functions.end_it, "ROLLBACK"),
    ],
    ids=str,
)
def test_one_clause_catches_every_error_of_a_statement(db, request_of_an_error):
    with pytest.raises(db.errors):
        db.ask(request_of_an_error)


def test_one_clause_catches_the_errors_of_a_session_and_of_a_crew_that_has_stopped(db):
    with pytest.raises(db.errors), db.transaction() as tx:
        tx.ask(Query(TAKEN))
    db.stop()
    with pytest.raises(db.errors):
        db.ask(Query("SELECT 1"))


@pytest.mark.parametrize(
    "request_of_an_error",
    [
        Query("SELECT ?", (1j,)),
        Query("SELECT 1; SELECT 2"),
        Query("SELECT ?", (2**64,)),
        Call(call_functions.move, 7, 8),
    ],
    ids=str,
)
def test_a_mistake_of_the_program_is_not_among_the_errors_of_a_statement(db, request_of_an_error):
    with pytest.raises(Exception) as caught:  # of several classes
        db.ask(request_of_an_error)
    assert not isinstance(caught.value, db.errors)


@pytest.mark.parametrize(
    ("database", "errors"),
    [
        (None, (QuerycrewError, apsw.Error)),
        (SQLite(), (QuerycrewError, apsw.Error)),
        (ChildProcess(), (QuerycrewError, apsw.Error)),
        (FakeDatabase(), (QuerycrewError, Exception)),
        (Telling(), (QuerycrewError, OSError, LookupError)),
    ],
    ids=["default", "SQLite", "children", "no word of errors", "errors of its own"],
)
def test_a_database_names_the_errors_of_its_driver(start, database, errors):
    assert start(database).errors == errors


def test_children_raise_the_errors_of_their_database():
    assert ChildProcess(Telling()).errors == (OSError, LookupError)


@pytest.mark.parametrize("errors", [OSError, [OSError], (OSError, "text"), (int,), None])
def test_a_database_with_invalid_errors_is_refused_as_its_crew_is_started(errors):
    with pytest.raises(TypeError, match=r"Telling\.errors must be a tuple of classes of exceptions"):
        Supervisor.start(Telling(errors=errors))
