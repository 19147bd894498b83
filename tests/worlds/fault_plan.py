"""How likely each fault is in a world, and the errors that it makes."""

from asyncio import CancelledError
from random import Random


class Killed(BaseException):
    """An asynchronous exception: nobody's own, and no `Exception`."""


class Scripted(Exception):
    """A statement's own error, or a callback's."""


class Interrupted(Exception):
    """A statement was interrupted, and nothing of it is left."""


class OpeningFailed(OSError):
    """The database cannot be reached."""


class BadLuck(Exception):
    """The error of a driver that loses its connection."""


ENDINGS = (SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError, Killed)
"""The exceptions of a statement that end its worker."""


class FaultPlan:
    """How likely each event is in this world. Many worlds lack some kinds of faults."""

    def __init__(self, random: Random) -> None:
        one_of = random.choice
        self.steps_between = one_of((12, 40, 40, 150, 150, 600, 3000))
        """Steps of the crew's code until another thread may go on, on average."""
        self.time_passes = one_of((0.0, 0.02, 0.1))
        """Between two threads: the clock goes on."""
        self.time = one_of((0.0005, 0.008, 0.1))
        """Seconds that pass then, at most."""
        self.kills = one_of((0, 0, 0, 1, 1, 2, 4))
        """Threads and children that are killed in the middle of something, at most."""
        self.killed = one_of((0.003, 0.02, 0.1))
        """Between two threads: one of them."""
        self.finalizer_runs = one_of((0.0, 0.0, 0.0, 0.01))
        """Between two threads: the garbage collector finds an object.

        Its finalizer asks the crew.
        """
        self.opening_fails = one_of((0.0, 0.0, 0.0, 0.1, 0.4, 0.9))
        self.opening_hangs = one_of((0.0, 0.0, 0.0, 0.0, 0.2))
        self.connection_lost = one_of((0.0, 0.0, 0.0, 0.05, 0.2))
        self.statement_fails = one_of((0.0, 0.1, 0.3))
        self.statement_kills = one_of((0.0, 0.0, 0.02, 0.1))
        """The statement raises an exception that ends its worker."""
        self.statement_lasts = one_of((0.0, 0.05, 0.3))
        self.statement_is_deaf = one_of((0.0, 0.0, 0.0, 0.2, 0.6))
        """It ignores its interrupt, if it lasts."""
        self.hurry = one_of((0.0, 0.0, 0.2, 0.6))
        """A request: it has a deadline."""
        self.second_thoughts = one_of((0.0, 0.1, 0.4))
        """A client's turn: the client cancels one of its requests."""
        self.trouble = one_of((0.0, 0.05, 0.2))
        """A client's turn: it stops a worker, or sends it nonsense, or settles a reply itself."""
        self.checkouts = one_of((0.0, 0.1, 0.4))
        """A client's turn: it begins a transaction, a stream or a backup."""
        self.end = one_of((0.0, 0.0, 0.0, 0.0, 0.03, 0.1))
        """A client's turn: it stops the crew, one way or other."""
