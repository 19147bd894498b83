"""PostgreSQL: a database on a server."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

from actors.values.checks import check_bool, check_number, check_whole
from actors.values.record import Record, store
from actors.values.restart import RestartPolicy

if TYPE_CHECKING:
    from actors.databases.postgres.batches import BatchingConnection

__all__ = ["PostgreSQL"]

_MISSING: Final = "PostgreSQL needs psycopg 3: pip install 'querycrew[postgres]'"
_SIZE: Final = 4
_SECRETS: Final = frozenset({"password", "sslpassword", "passfile", "sslkey", "oauth_client_secret"})
_DEFAULTS: Final[Mapping[str, Any]] = {"connect_timeout": 10, "application_name": "querycrew"}


@final
class PostgreSQL(Record):
    """A PostgreSQL database, by psycopg 3 (the extra `postgres`).

    libpq defines the URI and the options: `PostgreSQL("postgresql://ann@db.example.com/app",
    password=…, sslmode="verify-full")`. An option replaces the same part of the URI. A part that is
    missing comes from libpq's environment variables, such as `PGHOST`. No password is ever shown.

    Statements have psycopg's placeholders: `%s`, or `%(name)s`. With parameters, a percent sign is
    written `%%`. A `Script` is one transaction, unless it contains BEGIN and COMMIT.

    Raises:
        ModuleNotFoundError: psycopg is not installed; the text names the extra.
        TypeError, ValueError: an option is wrong; the text names the option, and no secret.
    """

    options: Mapping[str, Any]
    """The parameters of libpq, from the URI and the options."""
    prepare_threshold: int | None
    """After how many uses a statement is prepared. `None` is never: a pooler such as PgBouncer may
    need that."""
    group_commit: bool
    """Whether queries that travel together share one transaction and one commit. This makes small
    writes several times faster. In exchange, queries of one group see each other's effects before
    the commit, all their rows stay locked until the commit, and after an error of one query the
    others run again, alone."""
    max_lifetime: float | None
    """Seconds after which a connection is replaced, less up to a tenth at random. `None` is
    never."""
    on_connect: str | Callable[[Any], object] | None
    """SQL statements that each new connection runs first, or a function that is called with the
    `psycopg.Connection`. They run again whenever a request may have changed the session."""

    _hidden = frozenset({"options"})

    def __init__(
        self,
        uri: str = "",
        *,
        prepare_threshold: int | None = 5,
        group_commit: bool = False,
        max_lifetime: float | None = 3600.0,
        on_connect: str | Callable[[Any], object] | None = None,
        **options: Any,
    ) -> None:
        store(self, "options", _parsed(uri, options))
        if prepare_threshold is not None:
            check_whole("PostgreSQL", "prepare_threshold", prepare_threshold, at_least=0)
        store(self, "prepare_threshold", prepare_threshold)
        store(self, "group_commit", check_bool("PostgreSQL", "group_commit", group_commit))
        if max_lifetime is not None:
            check_number("PostgreSQL", "max_lifetime", max_lifetime, at_least=0.001)
        store(self, "max_lifetime", max_lifetime)
        if on_connect is not None and not isinstance(on_connect, str) and not callable(on_connect):
            message = f"PostgreSQL(on_connect) must be SQL or a function, not {type(on_connect).__name__}"
            raise TypeError(message)
        store(self, "on_connect", on_connect)

    @property
    def name(self) -> str:
        """The name of the database."""
        options = self.options
        return str(
            options.get("dbname")
            or os.environ.get("PGDATABASE")
            or options.get("user")
            or os.environ.get("PGUSER")
            or options.get("service")
            or "postgres"
        )

    @property
    def max_size(self) -> int | None:
        """No limit: the server has one (`max_connections`)."""
        return None

    @property
    def default_size(self) -> int:
        """Four: the server's CPUs do the work, and not the CPUs of this machine."""
        return _SIZE

    @property
    def restart(self) -> RestartPolicy:
        """A server that was away is asked again at least every 0.3 seconds.

        An interrupt goes by a connection of its own, so it has more time than elsewhere.
        """
        return RestartPolicy(backoff_max=0.3, grace=1.0)

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The errors of psycopg."""
        import psycopg

        return (psycopg.Error,)

    def __str__(self) -> str:
        options = self.options
        host = options.get("host") or options.get("hostaddr") or os.environ.get("PGHOST") or ""
        port = options.get("port")
        where = f"{host}:{port}" if host and port else str(host)
        return f"PostgreSQL({self.name!r}{f' on {where}' if where else ''})"

    def __repr__(self) -> str:
        return str(self)

    def conninfo(self) -> dict[str, Any]:
        """Return the parameters of libpq, with the password."""
        return {**_DEFAULTS, **self.options}

    def connect(self) -> "BatchingConnection":
        """Open a connection; see `Database`.

        Raises:
            psycopg.Error: the server's or libpq's own. Its text shows no password.
        """
        from actors.databases.postgres.batches import BatchingConnection  # psycopg is imported only by its users

        return BatchingConnection(self)


def _parsed(uri: object, options: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of libpq. The errors of psycopg would show the URI."""
    try:
        from psycopg import Error
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_MISSING, name=error.name) from error
    if not isinstance(uri, str):
        message = f"PostgreSQL(uri) must be a str, not {type(uri).__name__}"
        raise TypeError(message)
    scheme, _, rest = uri.partition("?")[0].partition("://")
    user, at, rest = rest.partition("@")
    if scheme in ("postgresql", "postgres") and at and ("/" in user or "@" in rest):
        # libpq would take the end of the password as a host or a name, and both are shown.
        message = "PostgreSQL(uri): a user, a password and a name have %40 for @, and %2F for /"
        raise ValueError(message)
    # An error that is raised in an `except` clause would refer to the error of psycopg.
    parsed: dict[str, Any] | None = None
    with suppress(Error):
        parsed = conninfo_to_dict(uri)
    if parsed is None:
        message = "PostgreSQL(uri) is no URI of PostgreSQL: write postgresql://user@host:5432/database?option=value"
        raise ValueError(message)
    if "://" in str(options.get("dbname", "")):
        message = "PostgreSQL(dbname=…) must be a name; give a URI as the first argument"
        raise ValueError(message)
    for name, value in options.items():
        is_known = False
        with suppress(Error):
            make_conninfo(**{name: "1" if name in _SECRETS else value})
            is_known = True
        if not is_known:
            message = f"PostgreSQL({name}=…) is no option of libpq"
            raise TypeError(message)
    return {**parsed, **options}
