"""A user's `run` that breaks its contract costs its worker. No job is lost or runs for ever."""

from typing import Any

import pytest

from supervisor import ChildProcess, Connection, Database, Query, QuerycrewError, RestartPolicy, Result, Status
from tests.support.common import PATIENCE, error_of

PLACES = {"thread": lambda database: database, "child": ChildProcess}
GOOD = Query("good")


def answers_twice(batch, task):
    batch.answer(task, Result())
    batch.answer(task, Result())


def answers_and_fails(batch, task):
    batch.answer(task, Result())
    batch.fail(task, ValueError("late"))


def answers_and_gives_back(batch, task):
    batch.answer(task, Result())
    batch.give_back(task)


def answers_and_reroutes(batch, task):
    batch.answer(task, Result())
    batch.reroute(task)


WAYS = (answers_twice, answers_and_fails, answers_and_gives_back, answers_and_reroutes)
TWICE = {way.__name__: way for way in WAYS}


class Misbehaving(Connection):
    def run(self, batch: Any) -> None:
        while (task := batch.begin()) is not None:
            if task.request.sql in TWICE:
                TWICE[task.request.sql](batch, task)
            elif task.request.sql == "reroutes":
                batch.reroute(task)
            else:
                batch.answer(task, Result())


class Lazy(Connection):
    def run(self, batch: Any) -> None:
        del batch


class Of(Database):
    def __init__(self, kind: type[Connection]) -> None:
        self.kind = kind

    def connect(self) -> Connection:
        return self.kind()


@pytest.mark.parametrize("way", TWICE)
@pytest.mark.parametrize("place", PLACES)
def test_an_answered_job_is_done_even_if_its_connection_reports_on_it_again(start, place, way):
    db = start(PLACES[place](Of(Misbehaving)), size=1)
    db.ask(GOOD, timeout=PATIENCE)
    reply = db.ask(Query(way), block=False)
    assert reply.get(timeout=PATIENCE) == Result()
    db.ask(GOOD, timeout=PATIENCE)
    status = db.ask(Status())
    assert (status.submitted, status.answered, status.restarts) == (3, 3, 1)


@pytest.mark.parametrize("place", PLACES)
def test_a_job_that_asks_for_a_missing_writer_gets_an_error(start, place):
    db = start(PLACES[place](Of(Misbehaving)), size=1)
    assert "asks for a worker that writes" in str(error_of(db.ask(Query("reroutes"), block=False)))
    db.ask(GOOD, timeout=PATIENCE)


@pytest.mark.parametrize("place", PLACES)
def test_a_job_that_its_connection_does_not_begin_gets_an_error(start, place):
    db = start(PLACES[place](Of(Lazy)), size=1, restart=RestartPolicy(max_restarts=1))
    assert isinstance(error_of(db.ask(GOOD, block=False)), QuerycrewError)
