"""Prepared: the texts that a connection knows, and the statements that it has prepared."""

from typing import Any, Final

import psycopg
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer

from actors.databases.postgres.sql_text import is_copy, leaves_session_clean

__all__ = ["Bound", "Prepared", "Statement", "check_text"]

_STALE: Final = ("0A000", "26000")
"""The SQLSTATEs of a prepared statement whose table has changed, or that a client has dropped. The
server reports both before it runs the statement."""
_COPY: Final = "COPY FROM STDIN and COPY TO STDOUT need a Call, whose function gets the connection"
_UNPREPARED: Final = -1  # uses of a statement that is not prepared at its next use
_MOST_PARAMS: Final = 65_535  # of one statement, by PostgreSQL's protocol

_PREPARED: Final = 100  # prepared statements of a connection, about
_KNOWN: Final = 1000  # texts that are remembered
_GUESS: Final = 0.0001  # seconds; for a statement that did not run yet
_LONGEST: Final = 4000  # characters of a text that is remembered
_CONVERSION: Final = (b"client_encoding", b"DateStyle", b"IntervalStyle", b"TimeZone")
"""The settings on which the conversion of values depends."""


class Statement:
    """A text, with all that was found out about it."""

    __slots__ = ("columns", "converter", "is_clean", "loaded", "names", "refusal", "seconds", "transformer", "uses")

    def __init__(self, sql: str, context: "Prepared") -> None:
        self.transformer = Transformer(context)
        self.converter = PostgresQuery(self.transformer)
        self.names: dict[tuple[int, ...] | None, bytes] = {}
        """The names of its prepared statements, by the types of the parameters."""
        self.uses = 0
        self.columns: tuple[str, ...] = ()
        self.loaded: bytes | None = None
        """The name of the prepared statement whose rows have these columns, and these loaders."""
        self.is_clean = leaves_session_clean(sql)
        """Whether it surely leaves its session as it was."""
        self.seconds = _GUESS
        """How long it took the last time, with its part of a pipeline's time."""
        self.refusal = _COPY if is_copy(sql) else _nul(sql)
        """Why no connection can run it; `None` if it can be run."""


class Bound:
    """A statement with parameters as they travel."""

    __slots__ = ("formats", "name", "params", "query", "statement", "types", "was_refused")

    def __init__(self, statement: Statement) -> None:
        converter = statement.converter
        self.name: bytes | None = None
        """The name of the prepared statement by which it was sent."""
        self.was_refused = False
        """Whether the server has refused the prepared statement, so nothing ran."""
        self.statement = statement
        self.query = converter.query
        self.params = converter.params
        self.formats = converter.formats
        # Without parameters, a `%%` of the text is two percent signs: that is another statement.
        self.types = None if converter.params is None else converter.types
        if converter.params is not None:
            converter.params = ()  # a known statement keeps no parameters


class Prepared:
    """The texts that a connection knows. All methods belong to the worker's thread.

    A statement is prepared after `threshold` uses, once for each combination of the types of its
    parameters: psycopg chooses the type of a number by its size.
    """

    def __init__(self, driver: "psycopg.Connection[Any]", threshold: int | None) -> None:
        self.connection = driver
        self.adapters = driver.adapters
        """How values are converted. A `Transformer` asks for `adapters` and `connection`."""
        self._threshold = float("inf") if threshold is None else threshold
        self._known: dict[str, Statement] = {}
        # How many statements the server holds, and how many names were given.
        self._held = self._count = 0
        self.is_stale = False
        """Whether the server may hold statements that it cannot run any more, or too many."""
        self.refusals = 0
        """How often the server has refused a prepared statement."""
        # The settings for which the known texts hold, see `check_settings`.
        self._settings: list[bytes | None] = []

    def statement(self, sql: str) -> Statement:
        """Return the statement of a text."""
        statement = self._known.get(sql)
        if statement is None:
            statement = Statement(sql, self)
            if len(sql) <= _LONGEST:
                if len(self._known) >= _KNOWN:
                    self._forget_texts()
                self._known[sql] = statement
        return statement

    def check_settings(self) -> None:
        """Forget all texts if the session converts values in another way now.

        A text is known with its bytes, and with the loaders of its columns. Both depend on settings
        such as `DateStyle`. This runs behind each statement that may have changed a setting.
        """
        settings = [self.connection.pgconn.parameter_status(name) for name in _CONVERSION]
        if settings != self._settings:
            self._settings = settings
            self._forget_texts()

    def _forget_texts(self) -> None:
        self._known.clear()
        self.is_stale = self.is_stale or self._held > 0

    def check(self, sql: str) -> Statement:
        """Return the statement of a text that a connection can run.

        Raises:
            psycopg.NotSupportedError: the text contains NUL, or the statement is a COPY.
        """
        statement = self.statement(sql)
        if statement.refusal is not None:
            raise psycopg.NotSupportedError(statement.refusal)
        return statement

    def bind(self, sql: str, params: Any = ()) -> Bound:
        """Return a statement with its parameters. Nothing is sent.

        Raises:
            psycopg.Error: the parameters do not fit, or no connection can run the statement.
        """
        statement = self.check(sql)
        converter = statement.converter
        if converter.params is not None and params:
            converter.dump(params)
        else:
            # As in a cursor of psycopg, a `%` stands for itself if there are no parameters.
            converter.convert(sql, params or None)
        if len(converter.types) > _MOST_PARAMS:
            message = f"a statement has {_MOST_PARAMS} parameters at most, not {len(converter.types)}"
            raise psycopg.ProgrammingError(message)
        statement.uses += 1
        return Bound(statement)

    def is_due(self, bound: Bound) -> bool:
        """Say whether a statement must be prepared before it runs."""
        statement = bound.statement
        return statement.uses > self._threshold and statement.is_clean and bound.types not in statement.names

    def add(self, bound: Bound) -> bytes:
        """Return the name under which a statement is prepared."""
        self._count += 1
        self._held += 1
        self.is_stale = self.is_stale or self._held >= _PREPARED
        name = bound.statement.names[bound.types] = b"querycrew_%d" % self._count
        return name

    def remove(self, bound: Bound) -> None:
        """Note that a statement could not be prepared."""
        bound.statement.names.pop(bound.types, None)

    def note_error(self, bound: Bound, error: psycopg.Error) -> None:
        """Note why a statement has failed: perhaps the server has refused a prepared statement."""
        if bound.name is not None and error.sqlstate in _STALE:
            bound.was_refused = self.is_stale = True
            bound.statement.names.clear()
            bound.statement.uses = _UNPREPARED  # it runs again as it is, which no change can spoil
            self.refusals += 1

    def forget(self) -> None:
        """Note that the server holds no prepared statement any more."""
        for statement in self._known.values():
            statement.names.clear()
        self._held = 0
        self.is_stale = False
        # psycopg overlooks a second DEALLOCATE ALL, and would send another one after the first.
        own = self.connection._prepared
        own.clear()
        own._to_flush.clear()


def check_text(sql: str) -> None:
    """Refuse a text that libpq would cut off.

    Raises:
        psycopg.Error: the text contains the character NUL.
    """
    refusal = _nul(sql)
    if refusal is not None:
        raise psycopg.NotSupportedError(refusal)


def _nul(sql: str) -> str | None:
    return "PostgreSQL takes no statement with the character NUL (0x00)" if "\0" in sql else None
