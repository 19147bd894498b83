"""How likely each fault is in a world, and what strikes in the middle of a method."""

import sys
from collections.abc import Callable
from inspect import CO_GENERATOR
from random import Random
from types import FrameType
from typing import Any


class Killed(BaseException):
    """An asynchronous exception: nobody's own, and no `Exception`."""


class Scripted(Exception):
    """A statement's own error, or a callback's."""


class Luck:
    """How likely each thing is, in this world. Many worlds have no bad luck of one kind or other."""

    def __init__(self, random: Random) -> None:
        def one_of(*chances: float) -> float:
            return random.choice(chances)

        self.others_run = one_of(0.0, 0.05, 0.2, 0.4)
        """At a pause: others take a turn there."""
        self.killed_in_pause = one_of(0.0, 0.0, 0.0, 0.01, 0.03)
        """At a pause: the actor, or the client's call, is killed there."""
        self.time_passes = one_of(0.02, 0.1, 0.3)
        """Instead of somebody's turn: the clock goes on."""
        self.opening_fails = one_of(0.0, 0.0, 0.0, 0.1, 0.4, 0.9)
        self.opening_hangs = one_of(0.0, 0.0, 0.0, 0.0, 0.2)
        self.connection_lost = one_of(0.0, 0.0, 0.1, 0.3)
        self.statement_fails = one_of(0.0, 0.1, 0.3)
        self.statement_hangs = one_of(0.0, 0.0, 0.3, 0.8)
        self.statement_is_deaf = one_of(0.0, 0.0, 0.3, 0.8)
        """It ignores its interrupt."""
        self.hurry = one_of(0.0, 0.3, 0.9)
        """A request: it has a deadline."""
        self.second_thoughts = one_of(0.0, 0.1, 0.4)
        """A client's turn: it cancels what it has asked."""
        self.trouble = one_of(0.0, 0.1, 0.4)
        """A client's turn: it stops a worker, or sends it nonsense, or settles a reply itself."""
        self.end = one_of(0.0, 0.0, 0.0, 0.03, 0.1)
        """A client's turn: it stops the crew, one way or other."""
        self.strikes = one_of(0, 0, 1, 1, 2)
        """How many strikes (see `Strike`) there are, all in all."""


class Strike:
    """Hits one actor, or one client, in the middle of a method of the real code.

    CPython lets asynchronous exceptions and signal handlers in where a function starts, where a
    call of C code has returned, and where a loop goes round. The first two are what a profiler is told;
    for the third, the last or the next of them stands in. A finalizer may run in the same places.
    """

    def __init__(self, random: Random, deed: Callable[[str], None]) -> None:
        self.kind = random.choice(("worker", "worker", "worker", "supervisor", "client"))
        self.turns = random.randrange(12)
        """How many turns of its kind it lets pass."""
        self.steps = random.randrange(random.choice((20, 100, 300)))
        """How many places of the next turns it lets pass."""
        self._deed = deed
        self.victim: object = None

    def aim(self, one: Any, *, begins: bool = False) -> None:
        """Look for the place while `one` is running; it `begins` its turn, or goes on with it."""
        if begins and self.victim is None and one.kind == self.kind:
            self.turns -= 1
            if self.turns < 0:
                self.victim = one
        sys.setprofile(self.profile if one is self.victim and one is not None else None)

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """For `sys.setprofile`."""
        if event not in ("call", "c_return") or frame.f_globals.get("__name__", "tests").startswith("tests"):
            return
        if frame.f_code.co_flags & CO_GENERATOR:
            return  # it may be closing, where Python ignores what is raised
        self.steps -= 1
        if self.steps < 0:
            sys.setprofile(None)
            self._deed(f"{frame.f_code.co_qualname}, line {frame.f_lineno}, {event}")
