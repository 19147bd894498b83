"""Every way in which a value becomes a parameter; each answers the stored value and its type.

They need a table `kept(value)`, which they leave empty.
"""

import enum

from supervisor import Query, Stream, Transaction


class Name(str, enum.Enum):  # noqa: UP042  # its str() is not its text, unlike that of a StrEnum
    FIRST = "a"


def insert(db, query):
    db.ask(query)
    return db.ask(Query("DELETE FROM kept RETURNING value, typeof(value)")).rows[0]


def by_session(db, value):
    with db.transaction(readonly=True) as tx:
        return tx.ask(Query("SELECT ?1, typeof(?1)", (value,))).rows[0]


def by_writing_session(db, value):
    with db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (?)", many=[(value,)]))
        return tx.ask(Query("DELETE FROM kept RETURNING value, typeof(value)")).rows[0]


WAYS = {
    "Query": lambda db, value: db.ask(Query("SELECT ?1, typeof(?1)", (value,))).rows[0],
    "Query of a list": lambda db, value: db.ask(Query("SELECT ?1, typeof(?1)", [value])).rows[0],
    "Query by name": lambda db, value: db.ask(Query("SELECT :a, typeof(:a)", {"a": value})).rows[0],
    "Query by the name of an enum": lambda db, value: db.ask(Query("SELECT :a, typeof(:a)", {Name.FIRST: value})).rows[
        0
    ],
    "Query that writes": lambda db, value: insert(db, Query("INSERT INTO kept VALUES (?)", (value,))),
    "max_rows": lambda db, value: db.ask(Query("SELECT ?1, typeof(?1)", (value,), max_rows=5)).rows[0],
    "many": lambda db, value: insert(db, Query("INSERT INTO kept VALUES (?)", many=[(value,)])),
    "many of lists": lambda db, value: insert(db, Query("INSERT INTO kept VALUES (?)", many=iter([[value]]))),
    "many by name": lambda db, value: insert(db, Query("INSERT INTO kept VALUES (:a)", many=[{"a": value}])),
    "Transaction": lambda db, value: db.ask(Transaction([Query("SELECT ?1, typeof(?1)", (value,))]))[0].rows[0],
    "Transaction that only reads": lambda db, value: db.ask(
        Transaction([Query("SELECT ?1, typeof(?1)", (value,))], readonly=True)
    )[0].rows[0],
    "session that only reads": by_session,
    "session": by_writing_session,
    "Stream": lambda db, value: next(iter(db.ask(Stream("SELECT ?1, typeof(?1)", (value,))))),
    "Stream by name": lambda db, value: next(iter(db.ask(Stream("SELECT :a, typeof(:a)", {"a": value})))),
}
