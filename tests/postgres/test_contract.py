"""The contract of a database, run over PostgreSQL, plain and in a child process."""

from dataclasses import replace

import pytest

pytest.register_assert_rewrite("tests.databases.contract")

from supervisor import ChildProcess, PostgreSQL  # noqa: E402
from tests.databases.contract import *  # noqa: E402, F403  # the tests
from tests.databases.contract import Subject  # noqa: E402

NOWHERE = "postgresql:///nothing?host=/no/such/folder"
PLAIN = Subject(
    "PostgreSQL",
    make=lambda _: PostgreSQL(NOWHERE),  # the fixture `database` knows the server
    placeholder="%s",
    unreachable=lambda _: PostgreSQL(NOWHERE),
    script_is_one_transaction=True,
    missing_isolation="snapshot",
    runaway="SELECT count(*) FROM generate_series(1, 10) AS a, pg_sleep(1000)",
    values=(None, 0, 2**63 - 1, -(2**63), 1.5, "text \U0001f600", b"\0\xff"),
)
IN_A_CHILD = replace(
    PLAIN, name="PostgreSQL in a child process", unreachable=lambda _: ChildProcess(PostgreSQL(NOWHERE))
)


@pytest.fixture(params=[PLAIN, IN_A_CHILD], ids=str)
def subject(request):
    return request.param


@pytest.fixture
def database(subject, uri):
    plain = PostgreSQL(uri)
    return plain if subject is PLAIN else ChildProcess(plain)


@pytest.fixture
def connection(database):
    connection = database.connect()
    yield connection
    connection.close()
