"""Protection from untrusted files and untrusted SQL, after https://sqlite.org/security.html."""

from typing import Final

import apsw

__all__ = ["check_whole", "forget_schema", "is_harmless", "protect"]

_FILES: Final = {
    apsw.SQLITE_LIMIT_LENGTH: 100_000_000,
    apsw.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 200,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    apsw.SQLITE_LIMIT_VDBE_OP: 1_000_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 100,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 20,
}
"""Limits for untrusted files: far more than a harmless schema needs."""
_STATEMENTS: Final = {
    apsw.SQLITE_LIMIT_LENGTH: 1_000_000,
    apsw.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    apsw.SQLITE_LIMIT_COLUMN: 200,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 50,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 10,
    apsw.SQLITE_LIMIT_VDBE_OP: 25_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 16,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    apsw.SQLITE_LIMIT_VARIABLE_NUMBER: 200,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 10,
}
"""Limits for untrusted SQL: about those in SQLite's advice."""

_READING: Final = frozenset(
    {
        apsw.SQLITE_SELECT,
        apsw.SQLITE_READ,
        apsw.SQLITE_FUNCTION,
        apsw.SQLITE_RECURSIVE,
        # For the crew itself. `KnownStatements` refuses a caller's statement that is no query.
        apsw.SQLITE_TRANSACTION,
        apsw.SQLITE_SAVEPOINT,
    }
)
_PRAGMAS: Final = frozenset(
    {
        "foreign_key_list",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
"""Pragmas that only read the schema, with or without an argument."""
_OF_SEARCHES: Final = frozenset({"data_version", "page_size"})
"""Pragmas that a full-text search runs itself, without an argument."""
_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})


def protect(connection: apsw.Connection, *, strictly: bool) -> None:
    """Protect a connection from an untrusted file, and if `strictly` also from untrusted SQL.

    This is called before anything is read, and again after `on_connect`, which may not undo it.
    """
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0)
    connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0)
    connection.enable_load_extension(False)
    connection.pragma("cell_size_check", True)
    connection.pragma("mmap_size", 0)
    for limit, most in (_STATEMENTS if strictly else _FILES).items():
        connection.limit(limit, most)


def check_whole(connection: apsw.Connection) -> None:
    """Read the whole file once.

    Raises:
        apsw.CorruptError: the file is damaged, or was made to look so.
    """
    found = connection.execute("PRAGMA quick_check(1)").get
    if found != "ok":
        message = f"the database is damaged: {found}"
        raise apsw.CorruptError(message)


def forget_schema(connection: apsw.Connection) -> None:
    """Make SQLite read the schema again, now that the functions of `on_connect` are there.

    Parts of the schema that SQLite has read before may call functions by their names, an index for
    example. Without this they could call the functions of `on_connect`.

    Raises:
        apsw.CorruptError: the schema calls such a function in a place that makes it useless.
    """
    connection.execute("PRAGMA writable_schema = RESET").fetchall()
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()


def is_harmless(action: int, first: str | None, second: str | None) -> bool:
    """Say whether untrusted SQL may do an action that SQLite asks the authorizer about."""
    if action == apsw.SQLITE_PRAGMA:
        name = str(first).lower()
        return name in _PRAGMAS or (name in _OF_SEARCHES and second is None)
    return action in _READING and not (action == apsw.SQLITE_FUNCTION and str(second).lower() in _FUNCTIONS)
