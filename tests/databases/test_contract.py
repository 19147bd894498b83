"""The contract of `contract.py`, run over every kind of database."""

import sqlite3

import pytest

# Comes before the import, so that pytest shows the values of a failed assertion in that module too.
pytest.register_assert_rewrite("tests.databases.contract")

from supervisor import DBAPI, ChildProcess, DuckDB, SQLite  # noqa: E402
from tests.databases.contract import *  # noqa: E402, F403  # the tests
from tests.databases.contract import Subject  # noqa: E402

DUCKDB = {
    "runaway": "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000) c",
    "many_rows": "SELECT * FROM range(1, 100001)",
    "savepoints": False,
}

SUBJECTS = [
    Subject(
        "SQLite file",
        make=lambda folder: SQLite(folder / "app.db", busy_timeout=0),
        unreachable=lambda folder: SQLite(folder / "no such folder" / "app.db"),
    ),
    Subject(
        "SQLite file with a rollback journal",
        make=lambda folder: SQLite(folder / "app.db", journal_mode="delete", busy_timeout=0),
        unreachable=SQLite,
    ),
    Subject("SQLite memory", make=lambda _: SQLite(), shared=False),
    Subject(
        "SQLite file in a child process",
        make=lambda folder: ChildProcess(SQLite(folder / "app.db", busy_timeout=0)),
        unreachable=lambda folder: ChildProcess(folder / "no such folder" / "app.db"),
    ),
    Subject("SQLite memory in a child process", make=lambda _: ChildProcess(), shared=False),
    Subject(
        "DuckDB file",
        make=lambda folder: DuckDB(folder / "app.db"),
        unreachable=lambda folder: DuckDB(folder / "no such folder" / "app.db"),
        **DUCKDB,
    ),
    Subject("DuckDB memory", make=lambda _: DuckDB(), **DUCKDB),
    Subject(
        "DuckDB file in a child process",
        make=lambda folder: ChildProcess(DuckDB(folder / "app.db")),
        unreachable=lambda folder: ChildProcess(DuckDB(folder / "no such folder" / "app.db")),
        **(DUCKDB | {"shared": False}),
    ),
    Subject(
        "DBAPI sqlite3 file",
        make=lambda folder: DBAPI(sqlite3.connect, folder / "app.db", timeout=0),
        unreachable=lambda folder: DBAPI(sqlite3.connect, folder / "no such folder" / "app.db"),
    ),
    Subject("DBAPI sqlite3 memory", make=lambda _: DBAPI(sqlite3.connect, ":memory:"), shared=False),
    Subject(
        "DBAPI sqlite3 file in a child process",
        make=lambda folder: ChildProcess(DBAPI(sqlite3.connect, folder / "app.db", timeout=0)),
        unreachable=lambda folder: ChildProcess(DBAPI(sqlite3.connect, folder / "no such folder" / "app.db")),
    ),
]


@pytest.fixture(params=SUBJECTS, ids=str)
def subject(request):
    return request.param


@pytest.fixture
def database(subject, tmp_path):
    return subject.make(tmp_path)


@pytest.fixture
def connection(database):
    connection = database.connect()
    yield connection
    connection.close()
