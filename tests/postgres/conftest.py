"""Fixtures of the tests of PostgreSQL: a server for all of them, and a server to harm."""

from collections.abc import Iterator

import pytest

from tests.postgres.server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server for all tests of this process. No test may harm it."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def _own_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def victim(_own_server: Server) -> Iterator[Server]:
    """A server that a test may freeze, stop and kill; after the test it runs again."""
    yield _own_server
    _own_server.thaw()
    try:
        _own_server.run("SELECT 1")
    except Exception:
        _own_server.start()


@pytest.fixture
def uri(server: Server) -> Iterator[str]:
    """An empty database for one test."""
    uri = server.new_database()
    yield uri
    server.drop(uri)
