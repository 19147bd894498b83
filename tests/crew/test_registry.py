"""A crew among the other actors of a program, in Pykka's registry."""

import logging

import pykka
import pytest

from supervisor import Query, Script, Status, Stream, Subscribe, Supervisor
from tests.support.common import PATIENCE, nothing_left, thread_of_a_worker, up, worker_refs
from tests.support.fakes import FakeDatabase

HEARD = object()
"""The message that asks a `Hearer` for the messages it got."""


class Hearer(pykka.ThreadingActor):
    use_daemon_thread = True

    def on_receive(self, message):
        if message is HEARD:
            return self.heard
        self.heard.append(message)
        return None

    def on_start(self):
        self.heard = []


@pytest.fixture
def hearers(start):
    """Yield an actor that started before a crew, the crew, and an actor that started after it."""
    before = Hearer.start()
    db = start(FakeDatabase(), size=2)
    assert thread_of_a_worker(db)
    after = Hearer.start()
    yield before, db, after
    before.stop()
    after.stop()


def heard(ref):
    """Return all messages that an actor has got."""
    return ref.ask(HEARD, timeout=PATIENCE)


MESSAGES = ["a word", {"a": 1}, None, Status(), Stream("SELECT 1"), Query, object()]


@pytest.mark.parametrize("message", MESSAGES, ids=[*map(repr, MESSAGES[:-1]), "an object"])
def test_a_broadcast_reaches_every_other_actor_and_the_crew_ignores_it(hearers, message, caplog):
    before, db, after = hearers
    with caplog.at_level(logging.INFO):
        pykka.ActorRegistry.broadcast(message)
        pykka.ActorRegistry.broadcast(message, Supervisor)
        pykka.ActorRegistry.broadcast(message, "Worker")
        pykka.ActorRegistry.broadcast(message, Hearer)
    assert heard(before) == heard(after) == [message, message]
    assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"
    assert db.ask(Status()).restarts == 0
    assert not caplog.records


def test_a_broadcast_continues_after_a_crew_that_has_just_ended(hearers, start):
    before, _, after = hearers
    db = start(FakeDatabase(), size=2)
    refs = pykka.ActorRegistry.get_all()
    db.stop()
    for ref in [*refs, after]:  # like a broadcast that has listed the actors just before the end
        ref.tell("a word")
    assert heard(before) == ["a word"]


def test_every_crew_runs_a_request_that_is_broadcast(hearers, start):
    databases = [FakeDatabase(), FakeDatabase()]
    crews = [start(database, size=1) for database in databases]
    pykka.ActorRegistry.broadcast(Query("to all"), Supervisor)
    for crew in crews:
        crew.stop()
    assert [database.ran for database in databases] == [["to all"], ["to all"]]


def test_the_reference_of_start_still_refuses_other_messages(start):
    db = start(FakeDatabase(), size=1)
    for message in ("a word", Status(), Stream("SELECT 1")):
        with pytest.raises(TypeError):
            db.tell(message)


@pytest.mark.parametrize(
    "find",
    [
        lambda db: pykka.ActorRegistry.get_by_class(Supervisor)[0],
        lambda db: pykka.ActorRegistry.get_by_class_name("Supervisor")[0],
        lambda db: pykka.ActorRegistry.get_by_urn(db.actor_urn),
    ],
    ids=["class", "class name", "urn"],
)
def test_the_registrys_reference_can_do_everything_that_the_reference_of_start_can(start, path, find, hearers):
    del hearers
    pykka.ActorRegistry.stop_all()
    db, listener = start(path, size=1), Hearer.start()
    found = find(db)
    assert found == db
    found.ask(Script("CREATE TABLE t(x)"))
    found.tell(Query("INSERT INTO t VALUES (1)"))
    with found.transaction() as tx:
        tx.ask(Query("INSERT INTO t VALUES (2)"))
    assert [row.x for row in found.ask(Stream("SELECT x FROM t"))] == [1, 2]
    assert found.ask(Query("SELECT count(*) FROM t"), block=False).get(timeout=PATIENCE).scalar() == 2
    assert found.ask(Subscribe(listener)) is None
    assert heard(listener)
    listener.stop()
    with pytest.raises(TypeError):
        found.ask("a word")
    with pytest.raises(TypeError):
        found.proxy()
    with found:
        assert found.is_alive()
    assert not db.is_alive()
    assert nothing_left()


def test_a_worker_ignores_any_message_even_after_its_end(start):
    db = start(FakeDatabase(), size=1)
    assert thread_of_a_worker(db)
    [worker] = worker_refs()
    worker.tell("a word")
    db.stop()
    worker.tell("a word")
    assert up(db) == 0
