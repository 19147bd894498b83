"""Completion of SQL: keywords, tables, and columns."""

import re
from typing import Final

from actors.console.kinds import SQLITE, Kind
from actors.console.statements import KEYWORDS
from supervisor import Query, SupervisorRef

__all__ = ["Names"]

_OWN: Final = ("sqlite_schema",)
_WORD: Final = re.compile(r"[\w$]*\Z")
_OWNER: Final = re.compile(r"[\"`\[]?([\w$]+)[\"`\]]?\s*\.\s*\Z")
_BEFORE_A_TABLE: Final = re.compile(r"\b(from|join|into|update|table|schema)\s+\Z", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[A-Za-z_][\w$]*\Z")


class Names:
    """The tables and columns of a database, for completion. Read again after `forget`."""

    def __init__(self, db: SupervisorRef, kind: Kind = SQLITE) -> None:
        self._db = db
        self._kind = kind
        self._columns: dict[str, list[str]] | None = None

    def forget(self) -> None:
        """Read the names again before their next use."""
        self._columns = None

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns of each table and view. Empty where the database does not answer at once."""
        if self._columns is None:
            found: dict[str, list[str]] = {}
            try:
                rows = self._db.ask(Query(self._kind.columns, timeout=0.5)).rows
            except Exception:  # noqa: BLE001  # without names there is less to complete, and no more
                return {}
            for table, column in rows:
                found.setdefault(table, []).append(column)
            self._columns = found
        return self._columns

    def candidates(self, before: str) -> tuple[str, list[str]]:
        """Return the word before the cursor, and the words that can take its place.

        Args:
            before: the text of the statement up to the cursor.
        """
        word_found = _WORD.search(before)
        word = "" if word_found is None else word_found.group()
        rest = before[: len(before) - len(word)]
        columns = self.columns
        if owner := _OWNER.search(rest):
            return word, _matching(word, self._columns_of(owner.group(1), before))
        tables = [*columns, *_OWN]
        if _BEFORE_A_TABLE.search(rest):
            return word, _matching(word, tables)
        # Columns of tables that the statement names come first.
        named = [column for table in columns if _names(table, before) for column in columns[table]]
        others = [column for table in columns for column in columns[table]]
        keywords = KEYWORDS if word[:1].isupper() else [keyword.lower() for keyword in KEYWORDS]
        return word, _matching(word, [*named, *others, *tables, *(keywords if word else ())])

    def _columns_of(self, owner: str, statement: str) -> list[str]:
        """Return the columns of a table, by its name or by its alias in the statement."""
        by_name = {table.casefold(): names for table, names in self.columns.items()}
        if owner.casefold() in by_name:
            return by_name[owner.casefold()]
        for table, names in by_name.items():
            if re.search(rf"\b{re.escape(table)}\s+(as\s+)?{re.escape(owner)}\b", statement, re.IGNORECASE):
                return names
        return [name for names in by_name.values() for name in names]


def _names(table: str, statement: str) -> bool:
    return re.search(rf"\b{re.escape(table)}\b", statement, re.IGNORECASE) is not None


def _matching(word: str, candidates: list[str]) -> list[str]:
    """Return the candidates that begin with `word`, each once, quoted where SQL needs that."""
    start = word.casefold()
    found = dict.fromkeys(name for name in candidates if name.casefold().startswith(start) and name.isprintable())
    return [name if _PLAIN.match(name) else '"' + name.replace('"', '""') + '"' for name in found]
