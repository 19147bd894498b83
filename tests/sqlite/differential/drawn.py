"""Draws the next statement: it fits the form of the request and the schema."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tests.sqlite.differential import special
from tests.sqlite.differential.changing import change
from tests.sqlite.differential.defining import define, temporary
from tests.sqlite.differential.drawing import Draw
from tests.sqlite.differential.expected import Expected
from tests.sqlite.differential.reading import read
from tests.sqlite.differential.settings import ask_pragma, keep_up, set_pragma
from tests.sqlite.differential.statements import Statement
from tests.sqlite.differential.values import SMALL

SETUP = Statement("CREATE TABLE IF NOT EXISTS log(id INTEGER PRIMARY KEY, what, at)")
"""The table into which triggers write: the first statement of all."""


@dataclass(frozen=True)
class Mix:
    """How often each kind of statement is drawn for a form."""

    read: int = 8
    change: int = 14
    define: int = 5
    ask_pragma: int = 4
    set_pragma: int = 1
    keep_up: int = 1
    temporary: int = 1
    wrong: int = 1
    nothing: int = 1
    several: int = 1
    control: int = 1
    of_the_connection: int = 2
    has_params: bool = True


_READING = Mix(read=16, change=1, define=1, ask_pragma=8, keep_up=0, control=0)
_TOGETHER = Mix(read=0, change=20, ask_pragma=0, set_pragma=0, wrong=0, nothing=0, several=0, control=0)
_AT_ONCE = Mix(
    *(20, 0, 0), ask_pragma=2, set_pragma=0, keep_up=0, temporary=0, several=0, control=0, of_the_connection=0
)
MIXES = {
    "query": Mix(),
    "together": replace(_TOGETHER, of_the_connection=0),
    "reads at once": _AT_ONCE,
    "many": Mix(read=4, change=20, define=0, set_pragma=0, keep_up=0, temporary=0, several=0, control=0),
    "max_rows": Mix(read=14, change=8),
    "transaction": Mix(keep_up=0, wrong=0, several=0),
    "readonly transaction": replace(_READING, wrong=0, several=0),
    "session": Mix(control=2),
    "readonly session": _READING,
    "call": Mix(wrong=0, several=0),
    "tolerant call": Mix(several=0, control=2),
    "readonly call": replace(_READING, several=0),
    "script": Mix(several=0, control=2, has_params=False),
    "stream": replace(_READING, define=0, temporary=0),
}
FORMS = tuple(MIXES)

_MANY = ("query", "together", "transaction", "session", "call", "tolerant call")
_LIMITED = ("query", "together", "transaction", "session", "readonly session")
"""Forms in which a statement may also have many sets of parameters, or a limit of rows."""
_IN_TURN = ("INSERT", "REPLACE", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "VACUUM", "ANALYZE", "REINDEX")
"""The first words of statements that go straight to the writer. Later writes may overtake all
others."""

_MAKERS: tuple[Callable[[Draw], Statement], ...] = (
    *(read, change, define, ask_pragma, set_pragma, keep_up, temporary),
    *(special.wrong, special.nothing, special.several, special.control, special.of_the_connection),
)


def draw_statement(
    random: Random, form: str, right: Expected, before: list[Statement], *, in_memory: bool, sees_rowid: bool
) -> Statement:
    """Draw the next statement of a request; `before` holds all statements so far."""
    has_params = MIXES[form].has_params
    while True:
        d = Draw(random, right.connection, has_params=has_params, in_memory=in_memory, sees_rowid=sees_rowid)
        usable = [statement for statement in before if _fits(d, form, statement)]
        statement = _again(d, usable) if usable and d.chance(20) else _new(d, form)
        if _fits(d, form, statement):
            return _shaped(d, form, statement)


def _fits(d: Draw, form: str, statement: Statement) -> bool:
    mix = MIXES[form]
    if not getattr(mix, statement.kind, 1) or (statement.sees_rowid and not d.sees_rowid):
        return False
    if "changes()" in statement.sql and d.schema.has_virtual:
        return False
    if form == "together":
        return statement.sql.split()[0] in _IN_TURN
    if mix.has_params:
        return True
    has_no_end = statement.sql.count("/*") > statement.sql.count("*/")
    return not (statement.params or statement.many or has_no_end)


def _new(d: Draw, form: str) -> Statement:
    mix = MIXES[form]
    weights = {make: getattr(mix, make.__name__) for make in _MAKERS}
    if not d.sees_rowid:
        weights[special.of_the_connection] = 0
    make = d.weighted(weights)
    statement = replace(make(d), kind=make.__name__)
    if mix.has_params and make in (read, change, define) and d.chance(1):
        statement = special.with_wrong_params(d, statement)
    # Some pragmas take effect as they are prepared. REINDEX cannot be prepared with an old schema.
    # The program of a check has operands that are no text.
    is_explainable = make not in (set_pragma, keep_up, special.several) and "_check" not in statement.sql
    if is_explainable and d.chance(3):
        statement = special.explained(d, statement)
    return special.decorated(d, statement) if d.chance(6) else statement


def _again(d: Draw, usable: list[Statement]) -> Statement:
    """Return an earlier statement, perhaps with other parameters. Its facts fit the schema."""
    whole = [statement for statement in usable if statement.sql.startswith("SELECT *")]
    statement = d.one(*(whole if whole and d.chance(40) else usable))
    params = statement.many[0] if statement.many else statement.params
    if d.chance(50):
        if isinstance(params, dict):
            params = {name: d.one(value, *SMALL) for name, value in params.items()}
        else:
            params = tuple(d.one(value, *SMALL) for value in params)
    statement = replace(statement, params=params, many=None, max_rows=None)
    if not statement.target:
        return statement
    into = next((table for table in d.schema.tables if str(table) == statement.target and table.has_rowid), None)
    if into is None:
        return replace(statement, into=None, is_virtual=False)
    return replace(statement, into=into.name, is_virtual=into.kind == "virtual")


def _shaped(d: Draw, form: str, statement: Statement) -> Statement:
    """Give a statement several sets of parameters, or a limit of rows."""
    if form == "many" or (form in _MANY and statement.kind == "change" and d.chance(8)):
        sets = [statement.params, *(d.other_params(statement.params) for _ in range(d.number(0, 3)))]
        return replace(statement, params=(), many=tuple(sets))
    if form == "max_rows" or (form in _LIMITED and d.chance(8)):
        return replace(statement, max_rows=d.one(0, 1, 2, 5))
    return statement
