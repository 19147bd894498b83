"""The arguments of `querycrew [DATABASE] ["SQL"]`, and the crew that they describe."""

import argparse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.console.kinds import Kind
    from supervisor import Database, SupervisorRef

__all__ = ["Options", "add_arguments", "open_crew", "options_of"]

FORMATS = ("table", "csv", "json", "jsonl", "markdown")


@dataclass(frozen=True)
class Options:
    """The options and arguments of the command line."""

    database: str | None = None
    """The path of a file, a URI that starts with `file:`, or the URL of another database. `None` is
    a database in memory."""
    sql: str | None = None
    """The SQL to run; `None` for a prompt, or for the SQL of standard input."""
    format: str | None = None
    """One of `FORMATS`; `None` for a table on a terminal and CSV elsewhere."""
    header: bool = True
    """Whether CSV begins with a line of column names."""
    rows: int = 100
    """How many rows a table shows; 0 for all."""
    readonly: bool = False
    size: int | None = None
    processes: bool = False
    timeout: float | None = None
    pragmas: dict[str, str | int | float] = field(default_factory=dict)

    @property
    def kind(self) -> "Kind":
        """The kind of database that the argument names."""
        from actors.console.kinds import kind_of  # imports the library

        return kind_of(self.database)

    @property
    def in_memory(self) -> bool:
        """Whether the database lives and ends with this program."""
        return self.database in (None, "", ":memory:")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    parser.add_argument(
        "database",
        nargs="?",
        metavar="DATABASE",
        help="a file of SQLite, or a URL: postgresql://…, duckdb:FILE (default: in memory)",
    )
    parser.add_argument("sql", nargs="?", metavar="SQL", help="the SQL to run (default: a prompt, or standard input)")
    shown = parser.add_argument_group("what is written").add_mutually_exclusive_group()
    for name, text in (
        ("table", "an aligned table (the default on a terminal)"),
        ("csv", "comma-separated values (the default elsewhere)"),
        ("json", "an array of objects"),
        ("jsonl", "an object on each line"),
        ("markdown", "a table in Markdown"),
    ):
        shown.add_argument(f"--{name}", dest="format", action="store_const", const=name, help=text)
    parser.add_argument("--no-header", dest="header", action="store_false", help="CSV without the line of column names")
    parser.add_argument(
        "--rows", type=_rows, default=100, metavar="N", help="show N rows of a table, 0 for all (default: 100)"
    )
    crew = parser.add_argument_group("the crew")
    crew.add_argument("--readonly", action="store_true", help="write nothing, and fail where a statement would write")
    crew.add_argument("--size", type=_size, metavar="N", help="how many workers read")
    crew.add_argument("--processes", action="store_true", help="each worker has a child process")
    crew.add_argument("--timeout", type=_timeout, metavar="SECONDS", help="how long a statement may take")
    crew.add_argument(
        "--pragma", type=_pragma, action="append", default=[], metavar="NAME=VALUE", help="a setting of SQLite"
    )


def options_of(parsed: argparse.Namespace) -> Options:
    """Return the options that a parser with these arguments has found."""
    values = dict(vars(parsed))
    pragmas = dict(values.pop("pragma"))
    return Options(**values, pragmas=pragmas)


def open_crew(options: Options, *, create: bool = True, size: int | None = None) -> "SupervisorRef":
    """Start the crew that the options describe.

    Args:
        options: the database and how it is opened.
        create: whether a file is created where there is none.
        size: how many workers read, where the options do not say.

    Raises:
        ValueError, TypeError: an option makes no sense for this database.
    """
    from supervisor import ChildProcess, Supervisor

    database = _database(options, create=create)
    if options.processes:
        database = ChildProcess(database)
    return Supervisor.start(database, size=None if options.in_memory else options.size or size, timeout=options.timeout)


def _database(options: Options, *, create: bool) -> "Database":
    from supervisor import SQLite

    kind, url = options.kind, options.database
    if kind.make is not None:
        assert url is not None
        if options.pragmas:
            message = f"--pragma is a setting of SQLite, and not of {kind.name}"
            raise ValueError(message)
        return kind.make(url, options.readonly)
    settings: dict[str, Any] = {"pragmas": options.pragmas, "readonly": options.readonly}
    if not options.in_memory:
        settings["create"] = create and not options.readonly
        if options.database is not None and _has_rollback_journal(options.database):
            settings["journal_mode"] = "delete"
    path = ":memory:" if options.in_memory else options.database
    assert path is not None
    return SQLite(path, **settings)


def _has_rollback_journal(path: str) -> bool:
    """Say whether a file is there that does not use WAL.

    A library may switch a file to WAL, since its program chose the library. A command that looks at
    a file does not change it.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(20)
    except OSError:
        return False
    return header.startswith(b"SQLite format 3\0") and header[18:20] != b"\x02\x02"


def _rows(text: str) -> int:
    return _whole(text, 0)


def _size(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, at_least: int) -> int:
    if not text.isdecimal() or int(text) < at_least:
        message = f"must be a whole number of {at_least} or more, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        message = f"must be seconds, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return seconds


def _pragma(text: str) -> tuple[str, str | int | float]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        message = f"must be NAME=VALUE, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return name.strip(), _number(value.strip())


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
