"""Each server starts once for all tests."""

from collections.abc import Iterator

import pytest

from tests.dbapi import servers


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    with servers.postgres() as uri:
        yield uri


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MariaDB]:
    with servers.mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server
