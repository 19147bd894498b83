"""Statements, requests and answers: plain values for the crew and for the plain connection."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from supervisor import Query

Params = tuple[Any, ...] | Mapping[str, Any]


@dataclass(frozen=True)
class Statement:
    """One statement, and facts about it. The facts come from its author, never from its text."""

    sql: str
    params: Params = ()
    many: tuple[Params, ...] | None = None
    max_rows: int | None = None
    kind: str = ""
    """The name of the function that drew it."""
    changes: bool = False
    """It is an INSERT, UPDATE or DELETE."""
    target: str = ""
    """The table into which it inserts, as its text has it."""
    into: str | None = None
    """The name of that table alone, if its rows have rowids."""
    is_virtual: bool = False
    """That table is a virtual one."""
    alters: bool = False
    """It is an ALTER TABLE."""
    sees_rowid: bool = False
    """It calls `last_insert_rowid()` or `changes()`."""
    control: str | None = None
    """How it begins or ends a transaction: `begin`, `commit`, `rollback`, `savepoint`."""
    switches: bool | None = None
    """Whether it switches foreign keys on (or off)."""
    several: bool = False
    """It is more than one statement."""
    ordered: bool = False
    """The order of its rows is known."""
    varies: bool = False
    """Its rows may differ, since they depend on the file or on the query plan."""

    def query(self) -> Query:
        if self.many is not None:
            return Query(self.sql, many=self.many)
        return Query(self.sql, self.params, max_rows=self.max_rows)

    def once(self, params: Params) -> "Statement":
        """Return one run of a statement that is run many times."""
        return replace(self, params=params, many=None)

    def __str__(self) -> str:
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in self.sql)
        if self.params:
            text += f" {self.params!r}"
        if self.many is not None:
            text += f" many={list(self.many)!r}"
        return text if self.max_rows is None else f"{text} max_rows={self.max_rows}"


@dataclass(frozen=True)
class Answer:
    """The answer to a statement, or to a whole request."""

    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] | None = None
    rowcount: int | None = None
    lastrowid: int | None = None
    truncated: bool = False
    error: str | None = None
    """The class of the error."""
    text: str = ""
    """The text of the error."""


@dataclass(frozen=True)
class Asked:
    """A request: statements, and the form in which a crew is asked to run them."""

    form: str
    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.form}:", *(f"    {statement}" for statement in self.statements)])


def failed(error: BaseException) -> Answer:
    kind = type(error)
    return Answer(error=f"{kind.__module__}.{kind.__qualname__}", text=str(error.args[0]) if error.args else "")
