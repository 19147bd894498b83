"""A database for child processes, whose SQL can cause every fault that a child may have."""

import ctypes
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.databases.sqlite.connection import SQLiteConnection
from actors.databases.sqlite.database import SQLite
from actors.values.errors import ConnectionLost
from actors.values.requests import Request
from actors.values.result import Result


class Needy(Exception):
    """An error that can be taken apart, and not be put together again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Fatal:
    """A value that ends each process that unpickles it, except for the process that made it."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return end_elsewhere, (self.home,)


class Broken:
    """A value that cannot be put together anywhere else."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return raise_elsewhere, (self.home,)


def end_elsewhere(home: int) -> Fatal:
    if os.getpid() != home:
        os._exit(9)
    return Fatal()


def raise_elsewhere(home: int) -> Broken:
    if os.getpid() != home:
        raise LookupError("not at home")
    return Broken()


def segfault() -> int:
    ctypes.string_at(0)
    return 0


def leave(code: int) -> int:
    os._exit(code)


def die(number: int) -> int:
    os.kill(os.getpid(), number)
    return 0


def say(text: str) -> int:
    sys.stdout.write(text * 10_000)
    sys.stderr.write(text)
    os.write(1, text.encode())
    return 1


def scribble() -> int:
    """Write nonsense into every pipe."""
    for descriptor in range(3, 40):
        if _target(str(descriptor)) == "pipe":
            with suppress(OSError):  # an end for reading
                os.write(descriptor, b"\xff" * 64)
    return 1


def system_exit() -> int:
    raise SystemExit("had enough")


def needy() -> int:
    raise Needy("one", "two")


def local() -> int:
    class LocalError(Exception):
        pass

    raise LocalError("of a class that is only here")


def key_error(name: str) -> int:
    raise KeyError(name)


def hang() -> int:
    """Keep the interpreter to oneself for an hour."""
    ctypes.PyDLL(None).sleep(3600)
    return 1


def descriptors() -> str:
    """Return the kinds of the open descriptors, apart from the standard streams."""
    return " ".join(sorted(_target(name) for name in os.listdir("/proc/self/fd") if int(name) > 2))


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}").partition(":")[0]
    except OSError:
        return "gone"


def enter(path: str) -> int:
    """Write a line with this process's number into a file."""
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    return os.getpid()


def scribble_one(byte: int) -> int:
    """Write a single byte into every pipe, and go on for a while."""
    for descriptor in range(3, 40):
        if _target(str(descriptor)) == "pipe":
            with suppress(OSError):
                os.write(descriptor, bytes([byte]))
    return 1


def leave_a_stranger(how: str) -> int:
    """Start a process that outlives this one, and return its number."""
    if how == "fork":
        pid = os.fork()
        if not pid:
            threading.Event().wait(60)
            os._exit(0)
        return pid
    return int(os.popen("sleep 60 >/dev/null 2>&1 & echo $!").read())


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Poisonous(Exception):
    """An error whose unpacking wants the process to end, wherever that is."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (5,)


def strange(how: str) -> int:
    if how == "mute":
        raise Mute
    if how == "poisonous":
        raise Poisonous("beware")
    error = KeyError("with a note")
    error.__notes__ = [threading.Lock()]  # type: ignore[list-item]
    raise error


FUNCTIONS = (
    *(segfault, leave, die, say, scribble, system_exit, needy, local, key_error, hang, descriptors, enter),
    *(scribble_one, leave_a_stranger, strange),
)


@dataclass(frozen=True)
class Elsewhere:
    """A SQLite file whose SQL may call the functions above."""

    path: str
    entering: str | None = None
    """The file to which each child writes its number as it opens its connection.

    The first child then waits for ever.
    """
    max_size: int | None = None
    name: str = "elsewhere"

    def __str__(self) -> str:
        return "Elsewhere()"

    def connect(self) -> "ElsewhereConnection":
        if self.entering is not None:
            first = not Path(self.entering).exists()
            enter(self.entering)
            if first:
                threading.Event().wait()
        return ElsewhereConnection(SQLite(self.path).connect())


class ElsewhereConnection:
    """A connection that answers like the driver, except for some texts."""

    interrupts = 0

    def __init__(self, connection: SQLiteConnection) -> None:
        self._connection = connection
        for function in FUNCTIONS:
            connection.connection.create_scalar_function(function.__name__, function)

    def execute(self, request: Request) -> Result:
        match request.sql:
            case "unsendable":
                return Result(("x",), [(lambda: None,)], 1)
            case "fatal":
                return Result(("x",), [(Fatal(),)], 1)
            case "broken":
                return Result(("x",), [(Broken(),)], 1)
            case "nothing":
                return None  # type: ignore[return-value]
            case "lost":
                raise ConnectionLost("told to") from OSError("the scripted connection broke")
        return self._connection.execute(request)

    def interrupt(self) -> None:
        self.interrupts += 1
        self._connection.interrupt()
        if self.interrupts % 2:
            raise RuntimeError("raised by a faulty interrupt, half of the time")

    def close(self) -> None:
        self._connection.close()


SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT)
