"""Forks and the end of the interpreter while PostgreSQL works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor import PostgreSQL, Query
from tests.conftest import eventually
from tests.support.common import environment

ROOT = Path(__file__).parents[2]
MARK = "SELECT pg_sleep(1000), 'the end of a program'"

PROGRAM = """
import sys
from supervisor import ChildProcess, PostgreSQL, Query, Supervisor
from tests.conftest import eventually

database = PostgreSQL(sys.argv[1])
db = Supervisor.start(ChildProcess(database) if sys.argv[2] == "child" else database, size=2)
other = Supervisor.start(database, size=1)
replies = [db.ask(Query(sys.argv[3]), block=False) for _ in range(2)]
running = Query("SELECT count(*) FROM pg_stat_activity WHERE query = %s AND state = 'active'", (sys.argv[3],))
assert eventually(lambda: other.ask(running).scalar() == 2)
print("running", flush=True)
if sys.argv[4] == "frozen":
    sys.stdin.readline()
"""


@pytest.mark.parametrize("kind", ["plain", "child"])
def test_an_interpreter_ends_while_a_query_runs(server, uri, kind):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, uri, kind, MARK, ""],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
        cwd=ROOT,
    )
    assert ended.stdout == "running\n", ended.stderr
    assert ended.returncode == 0
    active = "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND state = 'active'"
    assert eventually(lambda: server.run(active, MARK) == [(0,)]), "the server still runs the query"


@pytest.mark.parametrize("kind", ["plain", "child"])
def test_an_interpreter_ends_although_the_server_is_frozen(victim, kind):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, victim.uri, kind, MARK, "frozen"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    )
    with program:
        assert program.stdout.readline() == "running\n"
        victim.freeze()
        program.stdin.close()
        assert program.wait(60) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_leaves_the_connections_of_its_parent_alone(start, uri):
    db = start(PostgreSQL(uri), size=2)
    before = db.ask(Query("SELECT pg_backend_pid()")).scalar()
    assert before
    child = os.fork()
    if not child:
        code = 1
        try:
            import gc

            gc.collect()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(20):
        assert db.ask(Query("SELECT 1")).scalar() == 1


FORK = """
import os, sys
from supervisor import PostgreSQL, Query, Supervisor, Status

db = Supervisor.start(PostgreSQL(sys.argv[1]), size=2)
assert db.ask(Query("SELECT 1")).scalar() == 1
child = os.fork()
if not child:
    sys.exit(0)  # an orderly end: destructors and atexit run
assert os.waitpid(child, 0)[1] == 0
for _ in range(20):
    assert db.ask(Query("SELECT 1")).scalar() == 1
assert db.ask(Status()).restarts == 0
print("fine")
"""


def test_a_forked_child_that_ends_in_order_harms_no_connection(uri):
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, uri],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
        cwd=ROOT,
    )
    assert ended.stdout.endswith("fine\n"), ended.stderr
