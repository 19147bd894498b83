"""The worked example of the guide: a database of an author's own, under cancels and losses."""

import socket
from contextlib import suppress

import pytest

from examples.own_database import Store, StoreDatabase, StoreError
from supervisor import DatabaseUnavailable, Query, QueryCancelled, RestartPolicy, Status, Stream, WorkerDied
from tests.conftest import eventually
from tests.support.common import error_of, up
from tests.support.health import is_idle, same_workers

QUICK = RestartPolicy(backoff_initial=0.0)


@pytest.fixture
def store():
    with Store() as store:
        yield store
        store.shutdown()


@pytest.fixture
def db(start, store):
    db = start(StoreDatabase(store.server_address), restart=QUICK)
    assert eventually(lambda: up(db) == 2)
    return db


def test_many_jobs_get_their_own_answers(db):
    for number in range(50):
        db.ask(Query("SET", (f"key{number}", number)))
    replies = [(number % 50, db.ask(Query("GET", (f"key{number % 50}",)), block=False)) for number in range(500)]
    assert [number for number, reply in replies if reply.get(timeout=30).scalar() != str(number)] == []


def test_cancels_hit_no_innocent(db):
    db.ask(Query("SET", ("key", "value")))
    with same_workers(db):
        for number in range(100):
            victim = db.ask(Query("SLEEP", ("0.003" if number % 2 else "60",)), block=False)
            innocents = [db.ask(Query("GET", ("key",)), block=False) for _ in range(3)]
            victim.cancel()
            assert isinstance(error_of(victim), QueryCancelled)
            assert [reply.get(timeout=30).scalar() for reply in innocents] == ["value"] * 3


def test_an_error_of_the_store_costs_no_worker(db):
    with same_workers(db):
        for _ in range(5):
            assert isinstance(error_of(db.ask(Query("JUMP"), block=False)), StoreError)
        assert isinstance(error_of(db.ask(Stream("GET key"), block=False)), TypeError)


def test_closed_idle_connections_cost_no_caller_anything(db, store):
    for _ in range(3):
        assert eventually(lambda: is_idle(db) and up(db) == 2)
        for client in store.sockets:
            with suppress(OSError):  # closed before
                client.shutdown(socket.SHUT_RDWR)
        store.sockets = [client for client in store.sockets if client.fileno() >= 0]
        assert db.ask(Query("GET", ("key",))).rows == []
    assert db.ask(Status()).died == 0


def test_a_lost_connection_costs_one_job(db, store):
    reply = db.ask(Query("SLEEP", (60,)), block=False)
    assert eventually(lambda: store.running)
    [(name, number)] = store.running
    store.sockets[int(name) - 1].shutdown(socket.SHUT_RDWR)
    assert isinstance(error_of(reply), WorkerDied)
    store.running[name, number].set()
    assert db.ask(Query("GET", ("key",))).rows == []


def test_a_store_that_is_gone_suspends_the_crew(start):
    with Store() as store:
        address = store.server_address
        store.shutdown()
    error = error_of(start(StoreDatabase(address), restart=QUICK).ask(Query("GET", ("key",)), block=False))
    assert isinstance(error, DatabaseUnavailable)
