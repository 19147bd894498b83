"""PostgreSQL behind the same crew: `python examples/in_postgres.py postgresql://ann@localhost/app`.

It needs the extra: `pip install 'querycrew[postgres]'`.
"""

import sys
from decimal import Decimal
from typing import Any

from supervisor import Call, PostgreSQL, Query, QueryTimeout, Script, Stream, Supervisor, Transaction

CREATE = """
DROP TABLE IF EXISTS querycrew_accounts;
CREATE TABLE querycrew_accounts (name text PRIMARY KEY, balance numeric NOT NULL CHECK (balance >= 0));
INSERT INTO querycrew_accounts VALUES ('Ann', 100), ('Bob', 50)
"""
MOVE = "UPDATE querycrew_accounts SET balance = balance + %s WHERE name = %s"


def move(connection: Any, amount: Decimal) -> Decimal:
    """Move money with Python between two statements. The connection is psycopg's."""
    (balance,) = connection.execute("SELECT balance FROM querycrew_accounts WHERE name = 'Ann' FOR UPDATE").fetchone()
    part = min(amount, balance)
    connection.execute(MOVE, (-part, "Ann"))
    connection.execute(MOVE, (part, "Bob"))
    return part


def main(uri: str) -> None:
    """Ask, change, stream, and set a deadline."""
    with Supervisor.start(PostgreSQL(uri)) as db:
        db.ask(Script(CREATE))  # all of it is one transaction
        db.ask(Transaction([Query(MOVE, (-30, "Ann")), Query(MOVE, (30, "Bob"))], isolation="serializable"))
        print("moved:", db.ask(Call(move, Decimal(500))))
        for row in db.ask(Query("SELECT name, balance FROM querycrew_accounts ORDER BY name")):
            print(row.name, row.balance)

        with db.transaction(isolation="repeatable read", readonly=True) as tx:
            print("accounts:", tx.ask(Query("SELECT count(*) FROM querycrew_accounts")).scalar())

        with db.ask(Stream("SELECT n FROM generate_series(1, 100000) AS n")) as rows:
            print("sum:", sum(row.n for row in rows))

        try:
            db.ask(Query("SELECT pg_sleep(60)", timeout=0.1))
        except QueryTimeout as error:
            print("interrupted; executed:", error.executed)

        db.ask(Script("DROP TABLE querycrew_accounts"))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
