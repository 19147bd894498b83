"""Draws the parts of a statement: texts, names of tables and columns, values."""

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

import apsw

from tests.sqlite.differential import values
from tests.sqlite.differential.schema import Column, Table, schema_of
from tests.sqlite.differential.statements import Params

T = TypeVar("T")

_PART = re.compile(r"\{(\w+)\}")


def lines_of(text: str) -> tuple[str, ...]:
    """Return the texts of a list. Two spaces or a new line stand between them."""
    return tuple(re.split(r"\s{2,}|\n", text.strip()))


LEAVES = ("{c}", "{c}", "{v}")
IN_SCHEMAS = lines_of("""
    {c}  {c}  {c}  {v}  {v}  {b}
    {x} + {x}  {x} - {x}  {x} * {x}  {x} / {x}  {x} % {x}  {x} || {x}  -{x}  ~{x}  {x} << 3  ({x}) COLLATE NOCASE
    CAST({x} AS {type})  CASE WHEN {b} THEN {x} ELSE {x} END  CASE {x} WHEN {v} THEN {x} END  iif({b}, {x}, 1)
    coalesce({x}, {x})  nullif({x}, {x})  typeof({x})  length({x})  abs({x})  hex({x})  quote({x})  max({x}, {x})
    lower({x})  upper({x})  trim({x})  substr({x}, 2)  replace({x}, {v}, {v})  instr({x}, {v})  min({x}, {x})
    round({x}, 1)  printf('%d|%s', {x}, {x})  zeroblob(3)  unicode({x})
    json_array({x}, {x})  json_object('k', {x})  json_extract({x}, '$.a')  {x} ->> 'a'  json_type({x})  json_valid({x})
    json_set({x}, '$.z', {x})  jsonb({x})
""")
EXPRESSIONS = (*IN_SCHEMAS, "(SELECT {x})", "(SELECT count(*) FROM {source})", "(SELECT max(x) FROM ({one_column}))")
CONDITIONS_IN_SCHEMAS = lines_of("""
    {c} = {v}  {c} > {v}  {c} IS NOT NULL  {x} = {x}  {x} < {x}  {x} IS {x}  {x} <> {v}  1  NOT {b}  {b} AND {b}
    {b} OR {b}  {x} IN ({v}, {v})  {x} BETWEEN {v} AND {v}  {x} LIKE {v}  {x} GLOB {v}  ({c}, {v}) >= ({v}, {c})
""")
CONDITIONS = (*CONDITIONS_IN_SCHEMAS, "{x} IN ({one_column})", "EXISTS ({one_column})", "{c} = {v}", "{c} > {v}")
DEPTH = 3

ROWIDS: tuple[Any, ...] = (None, None, None, 1, 2, 3, 1, 2, 4, 5, 10, -(2**63))
"""The greatest rowid is left out, since SQLite picks random rowids after it."""
_POOLS: dict[Sequence[Any], int] = dict.fromkeys((values.INTEGERS, values.FLOATS, values.TEXTS, values.BLOBS), 2)
_POOLS[values.SMALL] = 12


class Draw:
    """One statement that is being drawn."""

    def __init__(
        self, random: Random, connection: apsw.Connection, *, has_params: bool, in_memory: bool, sees_rowid: bool
    ) -> None:
        self._random = random
        self.schema = schema_of(connection)
        self.in_transaction = connection.in_transaction
        self.has_params = has_params
        self.in_memory = in_memory
        self.sees_rowid = sees_rowid
        """Whether the value of `last_insert_rowid()` is known."""
        self.uses_rowid = False
        """Whether the statement asks for that value."""
        self.in_schema = False
        """Whether the text becomes a part of the schema, so it has no parameters and no
        subqueries."""
        self.scope: list[str] = []
        """The columns that an expression may name."""
        self._depth = 0
        self._prefix = self.one(":", "@", "$") if has_params and self.chance(20) else ""
        # The value of each parameter, and other values that would fit.
        self._values: list[tuple[Any, Sequence[Any]]] = []
        self._parts: dict[str, Callable[[], object]] = {
            "c": lambda: self.one(*self.scope) if self.scope else self.value(),
            "v": self.value,
            "x": self.expression,
            "b": self.condition,
            "type": lambda: self.one("INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC"),
            "conflict": lambda: self.one("ABORT", "FAIL", "FAIL", "IGNORE", "REPLACE", "ROLLBACK"),
            "source": lambda: self.source() or "(VALUES (1))",
            "one_column": self._one_column,
        }

    # --- choices --------------------------------------------------------------------------

    def one(self, *options: T) -> T:
        return options[self._random.randrange(len(options))] if len(options) > 1 else options[0]

    def weighted(self, options: Mapping[T, int]) -> T:
        left = self._random.randrange(sum(options.values()))
        for option, weight in options.items():
            left -= weight
            if left < 0:
                return option
        raise AssertionError

    def chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent

    def number(self, least: int, most: int) -> int:
        return self._random.randrange(least, most + 1)

    def some(self, options: Sequence[T]) -> list[T]:
        """Return some of them, one at least, in their order."""
        return [option for option in options if self.chance(60)] or [self.one(*options)]

    # --- texts ----------------------------------------------------------------------------

    def fill(self, template: str, **parts: object) -> str:
        """Return a text with a part in place of each name. A part that is not given is drawn."""
        return _PART.sub(lambda found: str(parts[found[1]] if found[1] in parts else self._parts[found[1]]()), template)

    def expression(self) -> str:
        return self._nested(IN_SCHEMAS if self.in_schema else EXPRESSIONS)

    def condition(self) -> str:
        return self._nested(CONDITIONS_IN_SCHEMAS if self.in_schema else CONDITIONS)

    def _nested(self, templates: Sequence[str]) -> str:
        self._depth += 1
        text = self.fill(self.one(*(templates if self._depth < DEPTH else LEAVES)))
        self._depth -= 1
        return f"({text})" if self._depth and " " in text else text

    def where(self, percent: int = 60) -> str:
        return f"WHERE {self.condition()}" if self.chance(percent) else ""

    def of_schema(self, scope: Sequence[str], template: str) -> str:
        """Return a text that becomes a part of the schema, and may name the columns of `scope`."""
        before = self.in_schema, self.scope
        self.in_schema, self.scope = True, list(scope)
        text = self.fill(template)
        self.in_schema, self.scope = before
        return text

    def _one_column(self) -> str:
        source = self.source()
        if source is None or not source.columns:
            return f"SELECT {self.value()} AS x"
        return f"SELECT {self.one(*source.columns)} AS x FROM {source}"

    # --- tables ---------------------------------------------------------------------------

    def table(self) -> Table | None:
        return self.one(*self.schema.tables) if self.schema.tables else None

    def source(self) -> Table | None:
        """Return a table or a view."""
        sources = [*self.schema.tables, *self.schema.views]
        return self.one(*sources) if sources else None

    # --- values ---------------------------------------------------------------------------

    def value(self, pool: Sequence[Any] | None = None) -> str:
        """Return a value as a parameter, or as a literal."""
        if pool is None:
            pool = self.weighted(_POOLS)
        value = self.one(*pool)
        if self.in_schema or not self.has_params or self.chance(50):
            return values.literal(value)
        self._values.append((value, pool))
        return f"{self._prefix}p{len(self._values)}" if self._prefix else "?"

    def value_for(self, column: Column) -> str:
        """Return a value that a column is likely to take."""
        if column.is_rowid:
            return self.value(ROWIDS)
        if self.sees_rowid and self.chance(4):
            self.uses_rowid = True
            return "last_insert_rowid()"
        return self.value(values.OF_TYPE.get(column.type.upper()) if self.chance(85) else None)

    @property
    def params(self) -> Params:
        found = [value for value, _ in self._values]
        return {f"p{at}": value for at, value in enumerate(found, 1)} if self._prefix else tuple(found)

    def other_params(self, params: Params) -> Params:
        """Return other values, if possible of the same kinds."""
        pools = [pool for _, pool in self._values] or [values.SMALL] * len(params)
        if isinstance(params, Mapping):
            return {name: self.one(*pool) for name, pool in zip(params, pools, strict=False)}
        return tuple(self.one(*pool) for _, pool in zip(params, pools, strict=False))
