"""Runs the statements of a script, one after the other."""

from actors.databases.sqlite.sql_text import changes_rows, statements_of
from actors.databases.sqlite.transactions import Transactions
from actors.values.requests import Script
from actors.values.result import Result

__all__ = ["run_script"]


def run_script(script: Script, transactions: Transactions) -> Result:
    """Run a script. Each statement that changes rows is a transaction, unless one is open.

    Inside a transaction that the script has begun, an error undoes that whole transaction. After an
    error the caller rolls back.
    """
    runner = transactions.runner
    runner.counting.reset()
    for sql in statements_of(script.sql):
        if changes_rows(sql) and not runner.connection.in_transaction and not runner.reads_only:
            transactions.begin()
            runner.run_of_script(sql)
            transactions.commit_part()
        else:
            runner.run_of_script(sql)
    return Result((), [], runner.counting.changed, runner.counting.rowid)
