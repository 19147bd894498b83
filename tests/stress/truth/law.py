"""The law: which word to a caller allows which state of the file."""

import asyncio
from enum import Enum
from typing import Any

import pykka

from supervisor import QuerycrewError

__all__ = ["There", "Told", "Word", "allowed"]


class Word(Enum):
    """The answer to a caller about a write."""

    ANSWERED = "answered"
    DONE = "executed=True"
    UNDONE = "executed=False"
    UNKNOWN = "executed=None"
    FAILED = "driver's error"
    NOTHING = "no word"
    """The caller waited no longer, and nothing tells the end of the write."""


class There(Enum):
    """How much of a write is in the file."""

    NOT = "not there"
    WHOLE = "there"
    BEGINNING = "its first statements are there"
    PART = "a part of it is there"
    TWICE = "there more than once"


_ALLOWED = {
    Word.ANSWERED: {There.WHOLE},
    Word.DONE: {There.WHOLE},
    Word.UNDONE: {There.NOT},
    Word.FAILED: {There.NOT, There.BEGINNING},
    Word.UNKNOWN: {There.NOT, There.BEGINNING, There.WHOLE},
    Word.NOTHING: {There.NOT, There.BEGINNING, There.WHOLE},
}
"""Only a script is ever there by its first statements: each of its statements commits by itself."""


def allowed(word: Word, there: There) -> bool:
    """Say whether the word was true."""
    return there in _ALLOWED[word]


_LEFT = (pykka.Timeout, TimeoutError, asyncio.CancelledError)


class Told:
    """The outcome for a caller: a value or an error."""

    def __init__(self, value: Any = None, error: BaseException | None = None, *, may_be_done: bool = True) -> None:
        """Note the outcome for a caller.

        Args:
            value: the answer.
            error: the exception, instead of an answer.
            may_be_done: of a caller who waits no longer, whether the write may have taken effect.
        """
        self.value = value
        self.error = error
        self._may_be_done = may_be_done

    @property
    def is_left(self) -> bool:
        """Whether the caller waits no longer, and the crew may still be at work."""
        return isinstance(self.error, _LEFT) and not isinstance(self.error, QuerycrewError)

    @property
    def word(self) -> Word:
        """The meaning of the value or the error for the write."""
        if self.error is None:
            return Word.ANSWERED
        if isinstance(self.error, QuerycrewError):
            return {True: Word.DONE, False: Word.UNDONE, None: Word.UNKNOWN}[self.error.executed]
        if self.is_left:
            return Word.NOTHING if self._may_be_done else Word.UNDONE
        return Word.FAILED

    def __str__(self) -> str:
        if self.error is None:
            return self.word.value
        notes = "".join(f" [{note}]" for note in getattr(self.error, "__notes__", ()))
        return f"{self.word.value}: {type(self.error).__name__}: {self.error}{notes}"
