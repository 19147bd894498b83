"""The function for `Call`. It runs statements on the connection of the worker."""

import apsw

from tests.sqlite.differential import plain
from tests.sqlite.differential.statements import Answer, Statement


def run(connection: apsw.Connection, statements: tuple[Statement, ...], tolerant: bool) -> list[Answer]:
    """Run statements. Raise the first error, or go on after it while the transaction is open."""
    answers = list[Answer]()
    for statement in statements:
        answers.append((plain.answer if tolerant else plain.run)(connection, statement))
        if not connection.in_transaction:
            break
    return answers
