"""The facts that DuckDB's parser finds about a statement."""

from typing import Any, Final, NamedTuple

__all__ = ["Facts", "Parser", "facts_of"]

_REMEMBERED: Final = 1024  # texts

# Statements that leave a connection as it was. After every other kind it is opened anew, also after
# EXPLAIN: EXPLAIN ANALYZE runs a statement of any kind.
_CLEAN: Final = frozenset(
    {
        "ALTER", "ANALYZE", "CALL", "COPY", "COPY_DATABASE", "CREATE", "DELETE", "DROP", "EXPORT", "INSERT",
        "MERGE_INTO", "SELECT", "TRANSACTION", "UPDATE", "VACUUM",
    }
)  # fmt: skip
_MAY_RETURN: Final = frozenset({"DELETE", "INSERT", "MERGE_INTO", "MULTI", "UPDATE"})
"""Kinds that have rows if they do not tell a number of changed rows."""


class Facts(NamedTuple):
    """The facts about one statement."""

    kind: str
    """The name of its kind, as DuckDB has it."""
    reads: bool
    """Whether it is a query that only reads."""
    has_rows: bool
    """Whether it has rows if it tells no number of changed rows."""
    only_reads: bool
    """Whether it has rows and writes nothing, as far as its kind tells."""
    is_transaction: bool
    """Whether it begins or ends a transaction."""
    changes_connection: bool
    """Whether the next job could see that it ran, other than by the data."""


def facts_of(statement: Any) -> Facts:
    """Return the facts about a statement that DuckDB has parsed."""
    kind, text = statement.type.name, statement.query.lower()
    expected = {each.name for each in statement.expected_result_type}
    return Facts(
        kind,
        reads=kind == "SELECT",
        has_rows=expected == {"QUERY_RESULT"} or kind in _MAY_RETURN,
        only_reads=expected == {"QUERY_RESULT"} or kind == "MULTI",
        is_transaction=kind == "TRANSACTION",
        changes_connection=kind not in _CLEAN or (kind == "CREATE" and "temp" in text),
    )


class Parser:
    """The facts about the statements that a connection has run. In the connection's thread."""

    def __init__(self) -> None:
        # By the text of each statement.
        self._known: dict[str, Facts] = {}

    def facts(self, sql: str, connection: Any) -> Facts:
        """Return the facts about the only statement in `sql`.

        Raises:
            ValueError: there is none, or more than one.
            duckdb.Error: the text cannot be parsed.
        """
        facts = self._known.get(sql)
        if facts is None:
            statements = connection.extract_statements(sql)
            if len(statements) != 1:
                message = (
                    f"exactly one statement is needed, and {len(statements)} were given; a Script can have several"
                )
                raise ValueError(message)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            facts = self._known[sql] = facts_of(statements[0])
        return facts
