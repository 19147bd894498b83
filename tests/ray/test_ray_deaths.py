"""Deaths: of an actor, of the gateway, of a node, and of the whole cluster."""

import os
import signal
import socket

import pytest

from supervisor import (
    Call,
    DatabaseUnavailable,
    Query,
    QueryTimeout,
    Ray,
    RestartPolicy,
    Script,
    SQLite,
    Status,
    WorkerDied,
)
from tests.conftest import child_processes, eventually
from tests.ray.conftest import add_node
from tests.support.common import PATIENCE, RUNAWAY, error_of

SOON = RestartPolicy(backoff_max=0.5, max_restarts=1000)
WRITE = f"INSERT INTO kept SELECT i FROM ({RUNAWAY.replace('count(*)', 'i')})"
LONG = 30.0  # seconds. A new gateway needs some on a busy machine.


def kill_itself(connection):
    os.kill(os.getpid(), signal.SIGKILL)


def where_it_runs(db, sql):
    """Return the worker that runs a statement, once it does."""
    found = []

    def look():
        found[:] = [worker for worker in db.ask(Status()).workers if worker.job and sql[:20] in worker.job]
        return found

    assert eventually(look, LONG)
    return found[0]


def gateways():
    """Return the gateways of this process."""
    found = []
    for pid in child_processes():
        with open(f"/proc/{pid}/cmdline", "rb") as command:
            if b"querycrew-ray" in command.read():
                found.append(pid)
    return found


@pytest.fixture(scope="module")
def address(cluster):
    """The address of the cluster. An open connection keeps the gateway with this silence."""
    keeper = Ray(SQLite(), cluster.address, silence=1.5).connect()
    yield cluster.address
    keeper.close()


@pytest.fixture
def make(start, path):
    """Start a crew of two workers with an empty table."""

    def make_crew(address, **options):
        db = start(Ray(path, address, **options), size=2, restart=SOON)
        db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY)"))
        return db

    return make_crew


@pytest.fixture
def db(make, address):
    return make(address, silence=1.5)


def assert_serves(db):
    assert eventually(lambda: db.ask(Query("SELECT 1"), block=False).exception(LONG) is None, LONG)
    assert eventually(lambda: not db.ask(Status()).running, LONG)


# --- an actor -----------------------------------------------------------------------------


def test_a_killed_actor_costs_the_job_that_ran_and_no_other(db):
    lost = db.ask(Query(RUNAWAY), block=False)
    worker = where_it_runs(db, RUNAWAY)
    others = [db.ask(Query("SELECT ?", (number,)), block=False) for number in range(200)]
    os.kill(worker.pid, signal.SIGKILL)
    error = error_of(lost)
    assert isinstance(error, WorkerDied)
    assert error.executed is None
    assert f"Ray actor {worker.pid}" in str(error.__cause__)
    assert [reply.get(timeout=LONG).scalar() for reply in others] == list(range(200))
    assert worker.pid not in [each.pid for each in db.ask(Status()).workers]
    assert db.ask(Status()).died == 1


def test_a_job_that_kills_its_actor_is_rejected_and_never_run_again(db):
    error = error_of(db.ask(Call(kill_itself), block=False))
    assert isinstance(error, WorkerDied)
    assert_serves(db)
    assert db.ask(Status()).died == 1


def test_the_death_of_an_idle_actor_is_noticed(db):
    db.ask(Query("SELECT 1"))
    worker = next(each for each in db.ask(Status()).workers if each.role == "reader")
    os.kill(worker.pid, signal.SIGKILL)
    assert eventually(lambda: worker.id not in [each.id for each in db.ask(Status()).workers])
    assert_serves(db)
    assert db.ask(Status()).died == 0


def test_a_frozen_actor_is_given_up(make, cluster):
    # A gateway of its own: for a minute a gateway avoids a node on which an actor was frozen.
    db = make(cluster.address, silence=1)
    lost = db.ask(Query(RUNAWAY), block=False)
    worker = where_it_runs(db, RUNAWAY)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        error = error_of(lost)
        assert isinstance(error, WorkerDied)
        assert "has not answered for" in str(error.__cause__)
        assert_serves(db)
    finally:
        os.kill(worker.pid, signal.SIGKILL)


def test_kills_in_the_middle_of_many_jobs_lose_nothing_and_repeat_nothing(db):
    writes, reads = [], []
    for first in (0, 1000, 2000):
        for number in range(first, first + 1000):
            writes.append(db.ask(Query("INSERT INTO kept VALUES (?)", (number,)), block=False))
            reads.append(db.ask(Query("SELECT ?", (number,)), block=False))
        writes[first + 100].exception(LONG)
        for worker in db.ask(Status()).workers:
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGKILL)
    errors = [reply.exception(LONG) for reply in writes]
    assert {type(error) for error in errors} <= {type(None), WorkerDied}, "a write that ran twice is a ConstraintError"
    assert eventually(lambda: db.ask(Query("SELECT 1"), block=False).exception(LONG) is None, LONG)
    kept = set(db.ask(Query("SELECT number FROM kept")).column("number"))
    assert {number for number, error in enumerate(errors) if error is None} <= kept
    for number, reply in enumerate(reads):
        error = reply.exception(LONG)
        assert isinstance(error, WorkerDied) if error else reply.get().scalar() == number


# --- the gateway --------------------------------------------------------------------------


def test_the_death_of_the_gateway_costs_the_running_jobs_and_the_crew_goes_on(make, cluster):
    # A cluster with other options has a gateway of its own, which this test may kill.
    before = set(gateways())
    db = make(cluster.address, init={"namespace": "killed"})
    write = db.ask(Query(WRITE), block=False)
    where_it_runs(db, WRITE)
    [gateway] = set(gateways()) - before
    os.kill(gateway, signal.SIGKILL)
    error = error_of(write)
    assert isinstance(error, WorkerDied)
    assert error.executed is None
    assert_serves(db)
    assert db.ask(Query("INSERT INTO kept VALUES (1)"), timeout=LONG).rowcount == 1


def test_a_frozen_gateway_is_replaced(start, cluster, path):
    before = set(gateways())
    db = start(Ray(path, cluster.address, init={"namespace": "frozen"}, start_timeout=3), size=1, restart=SOON)
    assert_serves(db)
    [gateway] = set(gateways()) - before
    os.kill(gateway, signal.SIGSTOP)
    late = db.ask(Query("SELECT 1", timeout=0.1), block=False)
    assert isinstance(error_of(late), QueryTimeout)
    assert eventually(lambda: gateway not in gateways(), LONG)
    assert_serves(db)


# --- the cluster --------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def test_the_program_outlives_its_cluster_and_the_crew_resumes(make, make_cluster):
    port = free_port()
    cluster = make_cluster(port=port)
    db = make(cluster.address, silence=1.5)
    lost = db.ask(Query(WRITE), block=False)
    where_it_runs(db, WRITE)
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    assert isinstance(error_of(lost), WorkerDied)
    assert eventually(lambda: db.ask(Status()).state == "suspended", LONG)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert error.executed is False
    assert make_cluster(port=port).address == cluster.address
    insert = Query("INSERT INTO kept VALUES (1)")
    assert eventually(lambda: db.ask(insert, block=False).exception(LONG) is None, LONG)
    db.stop()  # before its cluster, or the gateway waits for an answer


# --- a node -------------------------------------------------------------------------------


@pytest.fixture
def second_node(cluster):
    """A second node of the common cluster, which a test may break."""
    node = add_node(cluster)
    yield node
    raylets = [process.process for process in node.all_processes["raylet"]]
    for raylet in raylets:
        raylet.send_signal(signal.SIGCONT)
    cluster.remove_node(node, allow_graceful=False)
    for raylet in raylets:
        raylet.wait()


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_the_workers_of_a_lost_node_come_back_where_there_is_room(start, address, path, second_node, harm):
    number = second_node.node_id[:8]
    db = start(Ray(path, address, silence=1.5, each_node=True), size=2, restart=SOON)
    assert eventually(lambda: len({each.node for each in db.ask(Status()).workers if each.node}) == 2, LONG)
    for worker in db.ask(Status()).workers:
        if worker.node.endswith(number):
            os.kill(worker.pid, harm)
    for process in second_node.all_processes["raylet"]:
        process.process.send_signal(harm)

    def nodes():
        return [each.node for each in db.ask(Status()).workers if each.node]

    assert eventually(lambda: nodes() and not any(node.endswith(number) for node in nodes()), LONG)
    assert db.ask(Query("SELECT 1"), timeout=LONG).scalar() == 1


def test_on_a_node_runs_on_that_node_only(start, address, second_node):
    db = start(Ray(SQLite(), address, silence=1.5).on(second_node.node_id))
    db.ask(Query("SELECT 1"), timeout=PATIENCE)
    assert {each.node.rpartition("/")[2] for each in db.ask(Status()).workers} == {second_node.node_id[:8]}
