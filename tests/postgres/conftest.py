"""Fixtures of the tests of PostgreSQL: a server for all of them, and a server to harm."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.server import Server, missing

_MISSING = missing()


class _SkippedModule(pytest.Module):
    """A module of tests that is not imported."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(str(_MISSING), allow_module_level=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip the tests with one reason where no server can run."""
    if _MISSING is None:
        return None
    skipped: pytest.Module = _SkippedModule.from_parent(parent, path=module_path)
    return skipped


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
    _own_server.recover()


@pytest.fixture
def uri(server: Server) -> Iterator[str]:
    """An empty database for one test."""
    uri = server.new_database()
    yield uri
    server.drop(uri)
