"""Crews whose workers live in Ray actors: requests, deadlines, errors, status, and the end."""

import json
import os
import platform
import signal
import subprocess
import sys
from concurrent.futures import CancelledError

import apsw
import pytest

from actors.databases.child.frames import HEAD
from actors.databases.child.results_codec import load_error
from actors.databases.ray.hosted import HostedConnection
from supervisor import (
    Call,
    ChildProcess,
    DatabaseUnavailable,
    DuckDB,
    Query,
    QueryTimeout,
    Ray,
    RestartPolicy,
    Script,
    SQLite,
    Status,
    Stream,
    Supervisor,
    Transaction,
)
from tests.conftest import eventually
from tests.support.call_functions import move, return_it
from tests.support.common import PATIENCE, RUNAWAY, environment, error_of
from tests.support.health import same_workers

COUNT = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"
"""A statement that takes as long as its parameter wants."""
LONG = 30.0  # seconds. A new actor needs some on a busy machine.


@pytest.fixture(scope="module")
def crew(address, tmp_path_factory):
    db = Supervisor.start(Ray(tmp_path_factory.mktemp("ray") / "app.db", address), size=2)
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY)"))
    yield db
    db.stop()


@pytest.fixture
def db(crew):
    """A crew with an empty table. No test loses one of its workers."""
    crew.ask(Query("DELETE FROM kept"))
    return crew


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(db) -> list[int]:
    return [worker.pid for worker in db.ask(Status()).workers if worker.pid]


# --- requests -----------------------------------------------------------------------------


def test_every_kind_of_request_is_answered(db):
    assert db.ask(Query("INSERT INTO kept VALUES (?)", (1,))).lastrowid == 1
    assert db.ask(Query("INSERT INTO kept VALUES (?)", many=[(2,), (3,)])).rowcount == 2
    results = db.ask(Transaction([Query("INSERT INTO kept VALUES (4)"), Query("SELECT count(*) FROM kept")]))
    assert results[1].scalar() == 4
    assert db.ask(Call(move, 4, 40)) == 4
    with db.transaction() as session:
        session.ask(Query("INSERT INTO kept VALUES (?)", (5,)))
        assert session.ask(Query("SELECT max(number) FROM kept")).scalar() == 40
    assert db.ask(Query("SELECT number FROM kept ORDER BY number")).column("number") == [1, 2, 3, 5, 40]
    assert db.ask(Query("SELECT number FROM kept ORDER BY number", max_rows=2)).truncated


def test_a_session_that_fails_leaves_nothing_behind(db):
    with pytest.raises(apsw.ConstraintError), db.transaction() as session:
        session.ask(Query("INSERT INTO kept VALUES (1)"))
        session.ask(Query("INSERT INTO kept VALUES (1)"))
    assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 0


def test_values_and_large_values_come_back_as_they_went_in(db):
    values = (None, 1.5, "text \0 \U0001f600", b"\0\xff", -(2**63), b"x" * (5 << 20))
    assert db.ask(Query("SELECT ?, ?, ?, ?, ?, ?", values)).rows == [values]


def test_a_large_result_arrives_whole(db):
    rows = db.ask(Query(COUNT.replace("count(*)", "i, 'some text ' || i"), (200_000,))).rows
    assert len(rows) == 200_000
    assert rows[-1] == (200_000, "some text 200000")


def test_a_stream_reads_a_result_without_end_piece_by_piece(db):
    seen = []
    with db.ask(Stream("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")) as rows:
        for row in rows:
            seen.append(row[0])
            if len(seen) == 5000:
                break
    assert seen == list(range(1, 5001))
    assert db.ask(Query("SELECT 1")).scalar() == 1


def test_many_jobs_share_a_few_calls_and_keep_their_order(db):
    replies = [db.ask(Query("INSERT INTO kept VALUES (?)", (number,)), block=False) for number in range(2000)]
    assert [reply.get(timeout=PATIENCE).lastrowid for reply in replies] == list(range(2000))
    assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 2000


def test_quick_jobs_do_not_wait_behind_a_slow_one_of_the_same_text(db):
    for _ in range(50):
        db.ask(Query(COUNT, (1,)))  # the crew learns that the statement is quick
    slow = db.ask(Query(COUNT, (10**12,)), block=False)
    quick = [db.ask(Query(COUNT, (2,)), block=False) for _ in range(100)]
    assert [reply.get(timeout=PATIENCE).scalar() for reply in quick] == [2] * 100
    assert not slow.done()
    slow.cancel()
    assert isinstance(error_of(slow), CancelledError)


# --- errors, deadlines, cancels -----------------------------------------------------------


def test_an_error_is_the_drivers_own_and_costs_no_worker(db):
    db.ask(Query("SELECT 1"))
    with same_workers(db):
        with pytest.raises(apsw.SQLError) as caught:
            db.ask(Query("SELECT missing FROM nowhere"))
        assert any("SELECT missing FROM nowhere" in note for note in caught.value.__notes__)
        with pytest.raises(LookupError, match="there is no 7"):
            db.ask(Call(move, 7, 8))
        with pytest.raises(TypeError, match="lambda"):
            db.ask(Call(lambda connection: None))
        assert db.ask(Call(return_it, 5)) == 5


def test_a_deadline_ends_its_own_job_only(db):
    db.ask(Query("SELECT 1"))
    with same_workers(db):
        late = [db.ask(Query(RUNAWAY, timeout=0.2), block=False) for _ in range(3)]
        others = [db.ask(Query("SELECT ?", (number,)), block=False) for number in range(100)]
        for reply in late:
            error = error_of(reply)
            assert isinstance(error, QueryTimeout)
            assert error.executed is False
        assert [reply.get(timeout=PATIENCE).scalar() for reply in others] == list(range(100))


def test_a_cancelled_job_is_undone_and_no_other_job_is_hit(db):
    write = f"INSERT INTO kept SELECT i FROM ({RUNAWAY.replace('count(*)', 'i')})"
    with same_workers(db):
        reply = db.ask(Query(write), block=False)
        after = db.ask(Query("INSERT INTO kept VALUES (1)"), block=False)
        assert eventually(lambda: any(worker.job for worker in db.ask(Status()).workers))
        reply.cancel()
        assert isinstance(error_of(reply), CancelledError)
        assert after.get(timeout=PATIENCE).rowcount == 1
    assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 1


# --- the status and the end ---------------------------------------------------------------


def test_a_status_names_the_node_and_the_process_of_each_worker(db, cluster):
    workers = db.ask(Status()).workers
    number = cluster.head_node.node_id
    assert all(worker.node.endswith(f"/{number[:8]}") for worker in workers)
    assert all(alive(worker.pid) for worker in workers)
    assert f"on {workers[0].node}" in str(db.ask(Status()))
    assert all(worker.memory is None for worker in workers), "the process may be on another machine"


def test_stop_leaves_no_actor_behind(address, path):
    db = Supervisor.start(Ray(path, address), size=2)
    db.ask(Query("SELECT 1"))
    before = pids(db)
    assert before
    db.stop()
    assert eventually(lambda: not any(map(alive, before)))


@pytest.mark.parametrize("is_local", [False, True], ids=["the cluster of others", "a cluster of its own"])
def test_a_program_that_is_killed_leaves_no_actor_behind(address, path, is_local):
    where = None if is_local else address
    program = f"""
import sys
from supervisor import Query, Ray, Status, Supervisor
db = Supervisor.start(Ray({os.fspath(path)!r}, {where!r}), size=2)
db.ask(Query("CREATE TABLE t(x)"))
print(*[worker.pid for worker in db.ask(Status()).workers if worker.pid], flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as running:
        numbers = [int(number) for number in running.stdout.readline().split()]
        running.kill()
    assert numbers
    assert eventually(lambda: not any(map(alive, numbers)), 30)


def test_no_cluster_at_the_address_suspends_the_crew(start, path):
    db = start(Ray(path, "127.0.0.1:1"), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert "no Ray cluster answers at 127.0.0.1:1" in str(error.__cause__)


def test_a_cluster_without_room_is_an_error_and_not_a_wait_for_ever(start, path, address):
    db = start(Ray(path, address, options={"num_cpus": 64}, start_timeout=2), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert "has no room for a worker" in str(error.__cause__)
    assert "'num_cpus': 64" in str(error.__cause__)


def test_a_node_that_the_cluster_does_not_have_is_an_error(path, address):
    with pytest.raises(ConnectionError, match="has no node 'nowhere'; its nodes are"):
        Ray(path, address).on("nowhere").connect()


# --- the value ----------------------------------------------------------------------------


def test_without_the_library_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'querycrew\[ray\]'"):
        Ray(":memory:")


def test_wrong_arguments_are_named():
    for wrong, text in (
        ({"address": 5}, r"Ray\(address\)"),
        ({"options": 5}, r"Ray\(options\)"),
        ({"init": {1: 2}}, r"Ray\(init\)"),
        ({"silence": "long"}, "silence"),
        ({"each_node": 1}, "each_node"),
        ({"node": 1}, r"Ray\(node\)"),
    ):
        with pytest.raises(TypeError, match=text):
            Ray(":memory:", **wrong)
    with pytest.raises(ValueError, match="max_restarts"):
        Ray(":memory:", options={"max_restarts": 5})
    with pytest.raises(TypeError, match="Ray"):
        Ray(ChildProcess())


@pytest.mark.parametrize("where", [{}, {"each_node": True}, {"node": "attic"}])
def test_a_database_that_one_process_may_write_has_one_worker_on_all_nodes(path, where):
    pytest.importorskip("duckdb")
    for database, most in (
        (DuckDB(path), 1),
        (DuckDB(path, read_only=True), None),
        (DuckDB(), 1),
        (SQLite(), 1),
        (SQLite(path), None),
    ):
        assert Ray(database, **where).max_size == most
    with pytest.raises(ValueError, match="serves at most 1 worker"):
        Supervisor.start(Ray(DuckDB(path), **where), size=2)


def test_a_duckdb_file_over_ray_is_written_by_one_worker_that_comes_back(start, address, path):
    pytest.importorskip("duckdb")
    db = start(Ray(DuckDB(path), address), restart=RestartPolicy(backoff_max=0.2, max_restarts=1000))
    db.ask(Script("CREATE TABLE kept(number INTEGER); INSERT INTO kept VALUES (1)"))
    [killed] = pids(db)
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: pids(db) not in ([], [killed]), LONG)
    assert db.ask(Query("SELECT number FROM kept"), timeout=LONG).rows == [(1,)]


@pytest.fixture
def other_version(address):
    """Let the cluster say that another Python has started it. Return a function that ends this."""
    from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
    from ray._raylet import GcsClient

    key, client = b"CLUSTER_METADATA", GcsClient(address=address)
    true = client.internal_kv_get(key, KV_NAMESPACE_CLUSTER)

    def put(metadata):
        client.internal_kv_put(key, metadata, True, KV_NAMESPACE_CLUSTER)

    put(json.dumps({**json.loads(true), "python_version": "2.7.18"}).encode())
    yield lambda: put(true)
    put(true)


def test_a_cluster_of_another_python_suspends_the_crew_until_the_cluster_is_right(start, address, path, other_version):
    db = start(Ray(path, address, init={"namespace": "versions"}), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert error.executed is False
    for version in ("2.7.18", platform.python_version()):
        assert version in str(error.__cause__)
    assert db.ask(Status()).state == "suspended"
    other_version()
    assert eventually(lambda: db.ask(Query("SELECT 1"), block=False).exception(LONG) is None, LONG)


def test_other_versions_on_a_node_are_an_error_that_names_both():
    failed = HostedConnection().open(b"", [], ("Python 2.7", "querycrew 9"))
    error = load_error(failed[HEAD.size :], Exception)
    assert isinstance(error, ImportError)
    assert "the program has Python 2.7 and querycrew 9" in str(error)
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in str(error)
