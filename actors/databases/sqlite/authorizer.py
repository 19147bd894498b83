"""Files and SQL of strangers: the settings that SQLite advises against them (https://sqlite.org/security.html)."""

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
"""For files of strangers: far more than a harmless schema needs."""
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
"""For SQL of strangers: about what SQLite's advice has."""

_READING: Final = frozenset(
    {
        apsw.SQLITE_SELECT,
        apsw.SQLITE_READ,
        apsw.SQLITE_FUNCTION,
        apsw.SQLITE_RECURSIVE,
        # Of the crew's own; a statement of a stranger that is no query is refused before its first step.
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
"""Pragmas that only tell of the schema, with or without an argument."""
_OF_SEARCHES: Final = frozenset({"data_version", "page_size"})
"""Pragmas that a full-text search runs itself, without an argument."""
_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})


def protect(connection: apsw.Connection, *, strictly: bool) -> None:
    """Keep a connection from doing what a file of a stranger asks for, or `strictly` also his SQL.

    Called once before anything is read, and once more behind `on_connect`, which may not undo it.
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
        apsw.CorruptError: it is damaged, or was made to look so.
    """
    found = connection.execute("PRAGMA quick_check(1)").get
    if found != "ok":
        message = f"the database is damaged: {found}"
        raise apsw.CorruptError(message)


def forget_schema(connection: apsw.Connection) -> None:
    """Let the schema be read again, now that the functions of `on_connect` are there.

    What SQLite has read before, an index for instance that calls a function of that name, would be allowed to call it.

    Raises:
        apsw.CorruptError: the schema calls one of them where that makes the whole of it useless.
    """
    connection.execute("PRAGMA writable_schema = RESET").fetchall()
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()


def is_harmless(action: int, first: str | None, second: str | None) -> bool:
    """Say whether a statement of a stranger may do what SQLite asks the authorizer about."""
    if action == apsw.SQLITE_PRAGMA:
        name = str(first).lower()
        return name in _PRAGMAS or (name in _OF_SEARCHES and second is None)
    return action in _READING and not (action == apsw.SQLITE_FUNCTION and str(second).lower() in _FUNCTIONS)
