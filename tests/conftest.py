"""Fixtures of all tests: a crew that stops with its test, and a check for leftovers."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pykka
import pytest

from supervisor import Supervisor, SupervisorRef

PROCESSES = 2


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in two processes, unless the command line names files or says `-n`.

    pytest-xdist starts the processes in a hook of the same name, which runs after this one. A
    process of pytest-xdist runs this hook, too, and must not start processes of its own.
    """
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS and not config.option.usepdb
    if whole and not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = PROCESSES
        config.option.dist = "worksteal"  # a few tests take a hundred times longer than most


class StartCrew(Protocol):
    def __call__(self, database: Any = None, **options: Any) -> SupervisorRef: ...


@pytest.fixture
def start() -> Iterator[StartCrew]:
    """Start crews; the fixture shuts them down at the end of the test, in any state."""
    refs: list[SupervisorRef] = []

    def start_crew(database: Any = None, **options: Any) -> SupervisorRef:
        refs.append(Supervisor.start(database, **options))
        return refs[-1]

    yield start_crew
    for ref in refs:
        ref.shutdown(cancel_pending=True, timeout=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def plain_signals() -> Iterator[None]:
    """Let signals end this process and the programs that it starts.

    A shell starts a background program with some signals ignored, and so does `nohup`. A program
    inherits the ignored signals.
    """
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def eventually(condition: Any, seconds: float = 10.0) -> bool:
    """Poll `condition()` until it is true; return whether it became true in time."""
    nothing = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        nothing.wait(0.002)
    return True


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def child_processes() -> set[int]:
    """Return the numbers of all child processes, zombies included."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else []:
        try:
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as children:
                found |= set(map(int, children.read().split()))
        except OSError:
            continue  # the thread has just ended
    return found


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    threads = set(threading.enumerate())
    actors = {ref.actor_urn for ref in pykka.ActorRegistry.get_all()}
    descriptors, children = open_descriptors(), child_processes()
    yield

    def left() -> list[object]:
        return [
            *(thread for thread in threading.enumerate() if thread not in threads),
            *(f"child process {pid}" for pid in child_processes() - children),
            *(ref for ref in pykka.ActorRegistry.get_all() if ref.actor_urn not in actors),
        ]

    assert eventually(lambda: not left()), f"left behind: {left()}"

    def descriptors_back() -> bool:
        if open_descriptors() <= descriptors:
            return True
        gc.collect()
        return False

    assert eventually(descriptors_back), f"{open_descriptors() - descriptors} descriptors left behind"
