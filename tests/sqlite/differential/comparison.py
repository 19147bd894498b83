"""A request, run by the oracle and by a crew, and every difference."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.sqlite.differential import forms
from tests.sqlite.differential.crews import Pair
from tests.sqlite.differential.expected import Expected, expected
from tests.sqlite.differential.oracle import REFUSED
from tests.sqlite.differential.statements import Answer, Asked, Statement

UNCERTAIN = ("apsw.ConstraintError", "apsw.BindingsError", "builtins.KeyError")
"""Errors whose texts may differ. A second constraint may be broken, and the library says more about
a parameter. A change of a view may have a second error too: the table of the view is missing."""
_SAYS_LITTLE = "SQL logic error"
"""The error of SQLite for an explained pragma whose table is missing.

SQLite raises the error or not, depending on the statements before."""

Next = Callable[[Expected, list[Statement], bool], Statement | None]
"""Gives the next statement of a request, if there is one. Its arguments: the expected answers, the
statements so far, and whether the value of `last_insert_rowid()` is known."""


class Difference(Exception):
    """The crew gave a wrong answer. Arguments: the request, and a sentence that names the error."""


class Unknowable(Exception):
    """The right answer is not known."""


def run(pair: Pair, form: str, next_one: Next) -> Asked:
    """Run a request on the oracle statement by statement, then on the crew, and compare.

    Raises:
        Difference: the crew gave a wrong answer.
        Unknowable: a statement asks for a value that an earlier request has left.
    """
    right = expected(pair.oracle, form)
    statements, sees_rowid = list[Statement](), pair.oracle.in_memory
    while not right.is_over and (statement := next_one(right, statements, sees_rowid)) is not None:
        if statement.sees_rowid and not sees_rowid:
            raise Unknowable
        statements.append(statement)
        right.step(statement)
        sees_rowid = sees_rowid or right.has_inserted
    answers = right.end()
    asked = Asked(form, tuple(statements))
    wrong = next(_wrong(pair, asked, answers), None)
    if wrong is not None:
        raise Difference(asked, wrong)
    return asked


def run_again(pair: Pair, asked: Asked) -> None:
    """Run a request that was drawn before."""
    statements = iter(asked.statements)
    run(pair, asked.form, lambda right, before, sees_rowid: next(statements, None))


def _wrong(pair: Pair, asked: Asked, right: list[Answer]) -> Iterator[str]:
    given = forms.answers(pair.db, asked)
    if len(given) == len(right):
        yield from _wrong_answers(asked.statements, given, right)
    else:
        yield f"the number of answers is {len(given)}, should be {len(right)}: {given}, should be {right}"
    yield from _wrong_databases(pair)
    if pair.restarts():
        yield "a worker has died"


def _wrong_answers(statements: tuple[Statement, ...], given: list[Answer], right: list[Answer]) -> Iterator[str]:
    for at, (mine, its) in enumerate(zip(given, right, strict=True)):
        # A single answer may stand for all statements. A session has one more, for its commit.
        statement = statements[at] if len(given) >= len(statements) > at else None
        for name, one, other in _differences(mine, its, statement):
            yield f"{name} of answer {at + 1} is {one!r}, should be {other!r}"


def _differences(given: Answer, right: Answer, statement: Statement | None) -> Iterator[tuple[str, Any, Any]]:
    """Return the differences between two answers: name, given value and right value of each."""
    is_wrong_twice = statement is not None and (statement.several or (right is REFUSED and statement.changes))
    if is_wrong_twice and None not in (given.error, right.error):
        return  # either of two errors may be found first
    if given.error != right.error:
        yield "the error", (given.error, given.text), (right.error, right.text)
    elif right.error is not None:
        is_certain = right.error not in UNCERTAIN and not right.text.startswith("cannot modify")
        is_certain = is_certain and _SAYS_LITTLE not in (given.text, right.text)
        if right.text and is_certain and given.text != right.text:
            yield "the text of the error", given.text, right.text
    else:
        given, right = _comparable(given, statement), _comparable(right, statement)
        for name in ("columns", "rows", "rowcount", "lastrowid", "truncated"):
            one, other = getattr(given, name), getattr(right, name)
            if repr(one) != repr(other):  # tells -0.0 from 0.0, and 1 from 1.0
                yield f"the {name}", one, other


def _comparable(answer: Answer, statement: Statement | None) -> Answer:
    rows = answer.rows
    if statement is None or rows is None:
        return answer
    if statement.varies:
        return replace(answer, rows=None, rowcount=None)
    if statement.ordered:
        return answer
    if answer.truncated:
        return replace(answer, rows=[()] * len(rows))
    return replace(answer, rows=sorted(rows, key=repr))


def _wrong_databases(pair: Pair) -> Iterator[str]:
    right = pair.right_dump()
    try:
        given = pair.dump()
    except Exception as error:
        yield f"the next read raises {error!r}"
        return
    for sql in [*right, *given]:
        if repr(given.get(sql)) != repr(right.get(sql)):
            yield f"afterwards {sql} finds {given.get(sql)!r}, should find {right.get(sql)!r}"
