"""Watching: the live view of a crew, on a terminal, or its state once as plain lines."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from actors.console import tables
from actors.console.keyboard import Keyboard, ended_by_signals, is_interactive
from actors.console.killing import Killer, NoSuchWorker
from actors.console.visible import visible
from supervisor import CrewStatus, OfferedCrew, Status, SupervisorRef

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["Ended", "OtherCrew", "OwnCrew", "watch", "watch_source"]

_LOOK: Final = 0.25  # seconds between two looks at the size of the terminal


class Ended(Exception):
    """The crew has ended; the text says so."""


class Source(Protocol):
    """The crew that is watched."""

    title: str

    def status(self) -> CrewStatus:
        """Return a snapshot.

        Raises:
            Ended: there will be no more snapshots.
            TimeoutError: the program does not answer now.
        """
        ...

    def cancel(self, job: int) -> bool:
        """Cancel a job."""
        ...

    def kill(self, worker: int) -> str:
        """Kill a worker; return the story."""
        ...


class OwnCrew:
    """A crew of this program."""

    def __init__(self, db: SupervisorRef, killer: Killer | None = None) -> None:
        self._db = db
        # Kills threads as well. Without one, only child processes can be killed.
        self._killer = killer
        self.title = f"{db.ask(Status()).name}, this program"

    def status(self) -> CrewStatus:
        """Return a snapshot. See `Source`."""
        status = self._db.ask(Status())
        if status.state == "stopped":
            raise Ended(f"crew {status.name!r} has stopped")
        return status

    def cancel(self, job: int) -> bool:
        """Cancel a job. See `Source`."""
        return self._db.cancel(job)

    def kill(self, worker: int) -> str:
        """Kill a worker. See `Source`."""
        if self._killer is not None:
            return self._killer.kill(self._db, worker).replace("\n", "; ")
        found = next((each for each in self._db.ask(Status()).workers if each.id == worker), None)
        if found is None:
            raise NoSuchWorker(f"there is no worker {worker} any more")
        if found.pid is None:
            raise NoSuchWorker(f"worker {worker} has no process of its own, so it cannot be killed: cancel its job")
        os.kill(found.pid, signal.SIGKILL)
        return f"worker {worker}, the process {found.pid}, was killed"


class OtherCrew:
    """A crew of another program, which offers itself."""

    def __init__(self, crew: OfferedCrew) -> None:
        self._crew = crew
        self.title = f"{crew.name}, process {crew.pid}"

    def status(self) -> CrewStatus:
        """Return a snapshot. See `Source`."""
        try:
            return self._crew.status()
        except ConnectionError as error:
            raise Ended(f"crew {self._crew.name!r} of process {self._crew.pid}: {error}") from None

    def cancel(self, job: int) -> bool:
        """Cancel a job. See `Source`."""
        return self._crew.cancel(job)

    def kill(self, worker: int) -> str:
        """Kill a worker. See `Source`."""
        self._crew.kill(worker)
        return f"worker {worker} was killed"


def watch(db: SupervisorRef, *, refresh: float = 1.0, killer: Killer | None = None) -> None:
    """Show a crew of this program until `q` or Ctrl-C, in the caller's thread."""
    watch_source(OwnCrew(db, killer), sys.stdout, refresh)


def watch_source(source: Source, stream: TextIO, refresh: float) -> None:
    """Show a crew until the person leaves or the crew ends; without a terminal, show it once."""
    try:
        if tables.HAS_RICH and is_interactive(stream):
            _show_live(source, stream, refresh)
        else:
            show_once(source, stream)
    except Ended as ended:
        print(visible(str(ended)), file=stream)


def show_once(source: Source, stream: TextIO) -> None:
    """Write the state of a crew as plain lines."""
    for line in str(source.status()).split("\n"):
        print(visible(line), file=stream)
    if not tables.HAS_RICH and stream.isatty():
        print("for the live view: pip install 'querycrew[console]'", file=stream)


def _show_live(source: Source, stream: TextIO, refresh: float) -> None:
    from rich.console import Group
    from rich.live import Live

    from actors.console.view import Quit, View

    view = View(source.title)
    descriptor = sys.stdin.fileno()
    keyboard = Keyboard(descriptor)
    console = tables.console_of(stream)
    live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    view.take(source.status(), time.monotonic())
    with (
        ended_by_signals(),
        suppress(KeyboardInterrupt, EOFError),  # Ctrl-C from outside, or a terminal that is gone
        keyboard.entered(),
        _drawn(live),
    ):
        due = time.monotonic() + refresh
        while True:
            size = console.size
            live.update(Group(*view.lines(size.width, size.height)), refresh=True)
            key = None
            while key is None and time.monotonic() < due and console.size == size:
                key = keyboard.key(max(0.0, min(_LOOK, due - time.monotonic())))
            while key is not None:
                act = view.press(key)
                if isinstance(act, Quit):
                    return
                if act is not None:
                    view.message = _do(source, act)
                    due = 0.0
                key = keyboard.key(0.0)
            if time.monotonic() >= due:
                due = time.monotonic() + refresh
                try:
                    view.take(source.status(), time.monotonic())
                except TimeoutError as error:
                    view.trouble = str(error)


@contextmanager
def _drawn(live: "Live") -> Iterator[None]:
    """Hide the text on the terminal, and show it again also if that was cut off."""
    try:
        live.start()
        yield
    finally:
        with suppress(OSError):  # the terminal is gone
            live.stop()


def _do(source: Source, act: object) -> str:
    """Carry out an act of the person; return the line that tells the outcome."""
    from actors.console.view import Cancel, Kill

    try:
        match act:
            case Cancel(job):
                return f"job {job} is cancelled" if source.cancel(job) else f"job {job} has ended already"
            case Kill(worker):
                return source.kill(worker)
    except Ended:
        raise
    except (NoSuchWorker, LookupError, ValueError, OSError) as error:
        return str(error)
    return ""
