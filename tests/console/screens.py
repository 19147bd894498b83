"""The command on a pseudo-terminal, and the screen that a person sees."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pyte

__all__ = ["COMMAND", "WITHOUT", "Screen", "environment"]

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-W", "error", "-m", "actors.console")


def WITHOUT(*libraries):  # noqa: N802  # stands in the place of COMMAND
    """Return the command in a Python that does not find these libraries."""
    gone = "; ".join(f"sys.modules[{name!r}] = None" for name in libraries)
    return sys.executable, "-c", f"import sys; {gone}; from actors.console.main import run; sys.exit(run())"


def environment(folder, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    places = {"HOME": str(folder), "XDG_STATE_HOME": str(folder), "IPYTHONDIR": str(folder / "ipython")}
    wanted = {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    return {**kept, **places, **wanted, **variables}


class Screen:
    """Runs a command on a terminal of 80 x 24, or another size; use it in a `with` block."""

    def __init__(self, folder, *arguments, command=COMMAND, columns=80, lines=24, **variables):
        self.written = b""
        """All that the command has written."""
        self._screen = pyte.HistoryScreen(columns, lines, history=5000)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(folder, **variables),
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # Ctrl-C is a signal then
        )
        os.close(slave)

    @property
    def text(self):
        """The text of the screen, with the lines that have left it at the top."""
        above = ["".join(line[at].data for at in range(self._screen.columns)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self._screen.display]).rstrip()

    def type(self, keys):
        os.write(self._master, keys.encode())

    def enter(self, line):
        self.type(line + "\r")

    def wait_for(self, text, *, times=1, seconds=20):
        """Wait until the screen shows `text` so many times."""
        deadline = time.monotonic() + seconds
        while self.text.count(text) < times:
            assert time.monotonic() < deadline, f"{text!r} is not shown {times} times:\n{self.text}"
            alive = self._read(0.1)
            assert alive or self.text.count(text) >= times, f"it ended without {text!r}:\n{self.text}"
        return self

    def wait_until(self, condition, *, seconds=20):
        """Wait until `condition(text)` is true for the text of the screen."""
        deadline = time.monotonic() + seconds
        while not condition(self.text):
            assert time.monotonic() < deadline, f"the screen shows:\n{self.text}"
            self._read(0.1)

    def interrupt_until(self, text):
        """Press Ctrl-C, and again each second, until the screen shows `text`."""
        deadline = time.monotonic() + 30
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} is not shown:\n{self.text}"
            until = time.monotonic() + 1
            while time.monotonic() < until:
                self._read(0.1)
            self.type("\x03")
            self._read(0.3)

    def end(self, seconds=30):
        """Wait until the command has ended; return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(0.1):
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
        return self._process.wait(seconds)

    def _read(self, seconds):
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            read = os.read(self._master, 65536)
        except OSError:
            return False  # so Linux tells that the other end is closed
        self.written += read
        self._stream.feed(read)
        for _ in range(read.count(b"\x1b[6n")):  # where is the cursor?
            self.type(f"\x1b[{self._screen.cursor.y + 1};{self._screen.cursor.x + 1}R")
        return bool(read)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)
