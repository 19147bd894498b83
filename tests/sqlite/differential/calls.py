"""The function for `Call`: it runs statements on the connection that it is given."""

import apsw

from tests.sqlite.differential import plain
from tests.sqlite.differential.statements import Answer, Statement


def run(connection: apsw.Connection, statements: tuple[Statement, ...], tolerant: bool) -> list[Answer]:
    """Run statements; raise the first error, or go on after it, as long as the transaction is there."""
    answers = list[Answer]()
    for statement in statements:
        answers.append((plain.answer if tolerant else plain.run)(connection, statement))
        if not connection.in_transaction:
            break
    return answers
