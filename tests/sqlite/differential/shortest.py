"""Finds the shortest program that still gets a wrong answer."""

from dataclasses import replace

from tests.sqlite.differential.comparison import Difference, Unknowable, run_again
from tests.sqlite.differential.crews import pair_of
from tests.sqlite.differential.statements import Asked

Program = list[Asked]


def shortest(kind: str, program: Program, wrong: str) -> tuple[Program, str]:
    """Leave out requests and statements as long as this sort of difference remains.

    Each try has a new crew."""
    sort = wrong.partition(" of ")[0].partition(" finds ")[0]
    if _wrong_with(kind, program, sort) is None:
        return program, f"{wrong} (not each time)"
    for left_out in (_without_request, _without_statement):
        at = 0
        while (shorter := left_out(program, at)) is not None:
            found = _wrong_with(kind, shorter, sort)
            program, wrong, at = (program, wrong, at + 1) if found is None else (shorter, found, at)
    return program, wrong


def _without_request(program: Program, at: int) -> Program | None:
    """Leave out one request, by its place from the end."""
    place = len(program) - 1 - at
    return [*program[:place], *program[place + 1 :]] if place >= 0 else None


def _without_statement(program: Program, at: int) -> Program | None:
    """Leave out one statement, by its place from the end."""
    for number, asked in reversed([*enumerate(program)]):
        if at < len(asked.statements):
            place = len(asked.statements) - 1 - at
            left = (*asked.statements[:place], *asked.statements[place + 1 :])
            kept = [replace(asked, statements=left)] if left else []
            return [*program[:number], *kept, *program[number + 1 :]]
        at -= len(asked.statements)
    return None


def _wrong_with(kind: str, program: Program, sort: str) -> str | None:
    """Run a program; return the difference, if there is one of this sort."""
    try:
        with pair_of(kind) as pair:
            for asked in program:
                run_again(pair, asked)
    except Difference as difference:
        wrong: str = difference.args[1]
        return wrong if wrong.startswith(sort) else None
    except Unknowable:
        return None
    return None
