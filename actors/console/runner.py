"""Runner: statements one after the other, as a shell runs them, with BEGIN and COMMIT."""

import re
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from actors.console.kinds import SQLITE, Kind, is_refused_write
from actors.console.statements import first_word, only_reads
from supervisor import Query, Result, Script, Stream, SupervisorRef

if TYPE_CHECKING:
    from supervisor import RowStream, Session

__all__ = ["Runner", "opened"]

_ENDS: Final = re.compile(r"(commit|end|rollback)(\s+transaction)?\s*;?\s*", re.IGNORECASE)
_BEGINS: Final = re.compile(r"begin(\s+(deferred|immediate|exclusive))?(\s+transaction)?\s*;?\s*", re.IGNORECASE)
_LASTS: Final = re.compile(r"(attach|detach)\b|create\s+temp(orary)?\b|pragma\s+[\w.]+\s*=", re.IGNORECASE)
_KEEPS: Final = "BEGIN and COMMIT keep statements on one connection"
_REMEDIES: Final = {
    "PRAGMA": "--pragma NAME=VALUE sets it on all connections",
    "CREATE": _KEEPS,
    "ATTACH": "SQLite(path, on_connect=…) in a program attaches on all connections",
    "DETACH": _KEEPS,
}


def opened(answer: "RowStream | Result") -> "AbstractContextManager[RowStream | Result]":
    """Return a context that closes a stream at its end, also after an error."""
    return nullcontext(answer) if isinstance(answer, Result) else answer


class Runner:
    """Hands statements to a crew, and holds the transaction that BEGIN has opened.

    A statement that reads is asked as a `Stream`, so its rows never have to fit into memory. Any
    other statement is asked as a `Query`.
    """

    def __init__(self, db: SupervisorRef, kind: Kind = SQLITE) -> None:
        self._db = db
        self._kind = kind
        self._session: Session | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether BEGIN has opened a transaction that is not over."""
        return self._session is not None

    def run(self, sql: str) -> "RowStream | Result":
        """Run one statement.

        Raises:
            Exception: the crew's error, or the driver's.
        """
        if _BEGINS.fullmatch(sql) and self._session is None:
            session = self._db.transaction(timeout=float("inf"))
            session.begin()
            self._session = session
            return Result()
        if (end := _ENDS.fullmatch(sql)) and self._session is not None:
            session, self._session = self._session, None
            if end.group(1).lower() == "rollback":
                session.rollback()
            else:
                session.commit()
            return Result()
        target = self._session or self._db
        if only_reads(sql) and first_word(sql) in self._kind.streams:
            try:
                return target.ask(Stream(sql))
            except Exception as error:
                if not is_refused_write(error):
                    raise
        return target.ask(Query(sql))

    def run_script(self, sql: str) -> Result:
        """Run several statements on one connection; their rows are not kept."""
        return (self._session or self._db).ask(Script(sql))

    def close(self) -> bool:
        """Roll back the transaction that is open; say whether there was one."""
        session, self._session = self._session, None
        if session is None:
            return False
        session.rollback()
        return True

    def hint(self, sql: str) -> str | None:
        """Return a sentence about a setting that ends with its statement, if `sql` makes one."""
        if self._session is not None or not _LASTS.match(sql):
            return None
        word = first_word(sql).upper()
        if word == "PRAGMA" and not _is_of_the_connection(sql):
            return None
        what = {"PRAGMA": "this setting ends", "CREATE": "the temporary object ends"}.get(word, f"{word} ends")
        return f"{what} with the statement, since each statement gets a clean connection; {_REMEDIES[word]}"


def _is_of_the_connection(sql: str) -> bool:
    """Say whether a PRAGMA sets something that the file does not keep."""
    kept = ("user_version", "application_id", "journal_mode", "auto_vacuum", "page_size", "encoding")
    return not re.match(rf"pragma\s+(\w+\.)?({'|'.join(kept)})\b", sql, re.IGNORECASE)
