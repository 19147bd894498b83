"""The contract of every database, run over Ray on a real local cluster."""

import pytest

# Comes before the import, so that pytest shows the values of a failed assertion in that module too.
pytest.register_assert_rewrite("tests.databases.contract")

from supervisor import Ray, SQLite  # noqa: E402
from tests.databases.contract import *  # noqa: E402, F403  # the tests
from tests.databases.contract import Subject  # noqa: E402


@pytest.fixture(params=["file", "memory"])
def subject(request, address):
    if request.param == "memory":
        return Subject("memory", make=lambda _: Ray(SQLite(), address), shared=False)
    return Subject(
        "file",
        make=lambda folder: Ray(SQLite(folder / "app.db", busy_timeout=0), address),
        unreachable=lambda folder: Ray(folder / "no such folder" / "app.db", address),
    )


@pytest.fixture
def database(subject, tmp_path):
    return subject.make(tmp_path)


@pytest.fixture
def connection(database):
    connection = database.connect()
    yield connection
    connection.close()
