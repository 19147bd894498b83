"""Loads: work that goes on beside the work that is measured."""

import threading
from collections.abc import Callable, Iterable
from itertools import count as counter
from typing import Any, Self

import apsw

__all__ = ["Load", "Threads", "check_locked"]


def check_locked(error: BaseException) -> None:
    """Raise every error except that of a statement that did not get a lock."""
    if not isinstance(error, apsw.BusyError) and "locked" not in str(error):
        raise error


class Load:
    """Keep a number of requests outstanding inside a `with` block: each answer submits the next."""

    def __init__(self, submit: Callable[[int], Any], outstanding: int) -> None:
        self.answered = 0
        self.errors: list[BaseException] = []
        self._submit = submit
        self._outstanding = outstanding
        self._numbers = counter()
        self._going = False
        self._ended = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._going = True
        for _ in range(self._outstanding):
            self._go_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        for _ in range(self._outstanding):
            self._ended.acquire()

    def _go_on(self) -> None:
        self._submit(next(self._numbers)).add_done_callback(self._note)

    def _note(self, reply: Any) -> None:
        error = reply.exception()
        if error is not None:
            self.errors.append(error)
        with self._lock:
            self.answered += 1
        if self._going:
            self._go_on()
        else:
            self._ended.release()

    def locked(self) -> int:
        """Return how many requests did not get a lock; raise every other error."""
        for error in self.errors:
            check_locked(error)
        return len(self.errors)


class Threads:
    """Let bare threads repeat their actions inside a `with` block, each on its own connection."""

    def __init__(self, actions: Iterable[Callable[[], object]]) -> None:
        self.answered = 0
        self.errors: list[BaseException] = []
        self._actions = list(actions)
        self._going = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._going = True
        self._threads = [threading.Thread(target=self._run, args=(action,)) for action in self._actions]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        for thread in self._threads:
            thread.join()

    def _run(self, action: Callable[[], object]) -> None:
        try:
            while self._going:
                action()
                self.answered += 1
        except BaseException as error:
            self.errors.append(error)
            raise

    def locked(self) -> int:
        return len(self.errors)
