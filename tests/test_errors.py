"""Every error says by its type and its data what became of the statement."""

import concurrent.futures
import pickle

import pykka
import pytest

from actors import errors
from actors.errors import (
    ConnectionLost,
    DatabaseUnavailable,
    QuerycrewError,
    QueueFull,
    SupervisorStopped,
    TransactionLeftOpen,
    WorkerDied,
    WouldDeadlock,
)

CALLERS_GET = [DatabaseUnavailable, QueueFull, SupervisorStopped, TransactionLeftOpen, WorkerDied, WouldDeadlock]


@pytest.mark.parametrize("error", CALLERS_GET)
def test_what_a_caller_gets_is_a_querycrew_error(error):
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


def test_what_is_known_of_one_error_is_not_said_of_the_next():
    error = SupervisorStopped("interrupted")
    error.executed = None
    assert SupervisorStopped("refused").executed is False


def test_a_lost_connection_is_told_to_the_worker_only():
    assert not issubclass(ConnectionLost, QuerycrewError)


@pytest.mark.parametrize("error", [*CALLERS_GET, ConnectionLost])
def test_an_error_can_be_pickled_with_what_is_known_of_it(error):
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
