"""View: a crew as lines on a terminal, the selected line, and the acts that keys ask for."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from actors.console.visible import visible
from supervisor import CrewStatus, Durations, WorkerStatus

__all__ = ["Cancel", "Kill", "Quit", "View"]

_WINDOW: Final = 10.0  # seconds that rates and times look back
_NARROW: Final = 60  # columns below which a line has the most important cells only
_WIDE: Final = 100
_STYLES: Final = {"busy": "green", "idle": "dim", "starting": "yellow", "awake": "dim", "queued": "cyan"}
_HELP: Final = (
    ("↑ ↓", "select a line; page up, page down, home and end work, too"),
    ("c", "cancel the job of the selected line"),
    ("k", "kill the worker of the selected line, after a question"),
    ("q", "quit; Ctrl-C does the same"),
    ("?", "this page"),
)
_ABOUT: Final = (
    "A line is a worker, or below the workers a job that waits. Rates and times count the last 10 seconds. "
    "The watched program goes on in any case."
)


@dataclass(frozen=True)
class Quit:
    """The person wants to leave."""


@dataclass(frozen=True)
class Cancel:
    """The person wants to cancel a job."""

    job: int


@dataclass(frozen=True)
class Kill:
    """The person wants to kill a worker, and has confirmed it."""

    worker: int


@dataclass(frozen=True)
class _Row:
    """A worker, or a job that waits."""

    key: tuple[str, int]
    state: str
    role: str
    seconds: float
    job: int | None
    more: int
    """How many other jobs the worker has begun."""
    text: str
    memory: int | None = None
    pid: int | None = None


class View:
    """The lines that a person sees, and the selected line. It draws nothing, and asks no crew."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._rows: list[_Row] = []
        self._history: deque[tuple[float, CrewStatus]] = deque()
        # The selected line, and its place for the case that it disappears.
        self._selected: tuple[str, int] | None = None
        self._at = 0
        self._first = 0  # the first line that is shown
        self._page = 1  # how many lines are shown
        self._question: _Row | None = None
        self._helps = False
        self.message = ""
        """One line for the person; the next key clears it."""
        self.trouble = ""
        """Why the snapshot is old; empty if it is not."""

    # --- news -----------------------------------------------------------------------------

    def take(self, status: CrewStatus, now: float) -> None:
        """Take a snapshot of the crew, at monotonic seconds."""
        self.trouble = ""
        self._history.append((now, status))
        while len(self._history) > 2 and now - self._history[1][0] >= _WINDOW:
            self._history.popleft()
        self._rows = list(_rows(status))
        keys = [row.key for row in self._rows]
        if self._selected in keys:
            self._at = keys.index(self._selected)
        else:
            self._select(self._at)

    def _select(self, at: int) -> None:
        self._at = max(0, min(at, len(self._rows) - 1))
        self._selected = self._rows[self._at].key if self._rows else None

    # --- keys -----------------------------------------------------------------------------

    def press(self, key: str) -> Quit | Cancel | Kill | None:
        """Take a key; return the act that it asks for."""
        self.message = ""
        if self._question is not None:
            row, self._question = self._question, None
            if key in ("y", "Y"):
                return Kill(row.key[1])
            self.message = f"worker {row.key[1]} lives on"
            return Quit() if key == "quit" else None
        if self._helps:
            self._helps = False
            return Quit() if key in ("q", "quit") else None
        match key:
            case "q" | "quit":
                return Quit()
            case "?" | "h":
                self._helps = True
            case "up" | "down" | "page up" | "page down" | "home" | "end":
                self._move(key)
            case "c":
                return self._cancel()
            case "k":
                self._ask_to_kill()
        return None

    def _move(self, key: str) -> None:
        steps = {"up": -1, "down": 1, "page up": -self._page, "page down": self._page}
        self._select({"home": 0, "end": len(self._rows) - 1}.get(key, self._at + steps.get(key, 0)))

    def _row(self) -> _Row | None:
        return self._rows[self._at] if self._at < len(self._rows) else None

    def _cancel(self) -> Cancel | None:
        row = self._row()
        if row is None or row.job is None:
            self.message = "the selected worker has no job"
            return None
        return Cancel(row.job)

    def _ask_to_kill(self) -> None:
        row = self._row()
        if row is None or row.key[0] != "worker":
            self.message = "a job that waits has no worker: select a worker, or press c"
        else:
            self._question = row

    # --- lines ----------------------------------------------------------------------------

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the lines of a screen, exactly `height` of them and none wider than `width`."""
        head = self._head(width)
        foot = self._foot()
        if self._helps:
            body = self._help(width)
        elif self._history:
            body = self._table(width, max(1, height - len(head) - len(foot) - 1))
        else:
            body = [Text("waiting for the first snapshot …", style="dim")]
        lines = [*head, *body]
        lines = lines[: max(0, height - len(foot))]
        lines += [Text()] * (height - len(foot) - len(lines))
        return [_fit(line, width) for line in [*lines, *foot]][:height]

    def _head(self, width: int) -> list[Text]:
        if not self._history:
            return [Text(self._title, style="bold"), Text()]
        status = self._history[-1][1]
        state = Text(visible(status.state), style="bold green" if status.state == "up" else "bold red")
        first = Text.assemble((visible(self._title), "bold"), "  ", state)
        first.append(f"  {visible(status.cause or status.database)}", "red" if status.cause else "dim")
        lines = [first, *self._figures(status, width)]
        if any(worker.role == "writer" for worker in status.workers) or status.writing is not None:
            lines.append(_lock(status))
        return [*lines, Text()]

    def _figures(self, status: CrewStatus, width: int) -> list[Text]:
        (then, before), (now, _) = self._history[0], self._history[-1]
        ended = _ended(status) - _ended(before)
        rate = f"{ended / (now - then):,.1f}" if now > then else "-"
        errors = status.failed + status.died + status.rejected + status.timed_out + status.shed
        run, wait = (status.runs_since(before), status.waits_since(before)) if now > then else (status.run, status.wait)
        crew = [("jobs", f"{rate}/s"), ("queue", f"{status.queued:,}"), ("running", f"{status.running:,}")]
        more = [("errors", f"{errors:,}"), ("cancelled", f"{status.cancelled:,}"), ("restarts", f"{status.restarts:,}")]
        if status.stuck:
            more.append(("stuck", f"{status.stuck:,}"))
        times = [("run p50", _p(run.p50, run)), ("p99", _p(run.p99, run))]
        waits = [("wait p50", _p(wait.p50, wait)), ("p99", _p(wait.p99, wait))]
        groups = [crew, more, times, waits] if width < _NARROW else [crew + more, times + waits]
        return [_pairs(group) for group in groups]

    def _table(self, width: int, space: int) -> list[Text]:
        shown = max(1, space - 1)
        hidden = len(self._rows) > shown
        if hidden:
            shown = max(1, shown - 1)
        self._page = shown
        self._first = max(0, min(self._first, self._at, len(self._rows) - shown))
        self._first = max(self._first, self._at - shown + 1)
        columns = _columns(self._rows, width)
        lines = [Text(" ".join(cell for cell, _ in _titles(columns)), style="bold dim")]
        for at, row in enumerate(self._rows[self._first : self._first + shown], self._first):
            lines.append(_line(row, columns, width, is_selected=at == self._at))
        if hidden:
            above, below = self._first, max(0, len(self._rows) - self._first - shown)
            lines.append(Text(f"{above} lines above, {below} below", style="dim"))
        return lines

    def _foot(self) -> list[Text]:
        if self._question is not None:
            row = self._question
            process = "" if row.pid is None else f"  process {row.pid}"
            loses = "" if row.job is None else f"  its job is {row.job}"
            return [Text(f"kill worker {row.key[1]}? y / n{process}{loses}", style="bold yellow")]
        if self.trouble:
            return [Text(visible(self.trouble), style="bold red")]
        if self.message:
            return [Text(visible(self.message), style="bold")]
        return [Text("↑↓  c cancel  k kill  q quit  ? help", style="dim")]

    def _help(self, width: int) -> list[Text]:
        lines = [Text(f"{keys:<5} {what}") for keys, what in _HELP]
        about, line = [], ""
        for word in _ABOUT.split():
            if len(line) + len(word) + 1 > width:
                about.append(Text(line, style="dim"))
                line = ""
            line = f"{line} {word}".strip()
        return [*lines, Text(), *about, Text(line, style="dim")]


def _rows(status: CrewStatus) -> Iterable[_Row]:
    for worker in status.workers:
        yield _Row(
            ("worker", worker.id),
            worker.state,
            worker.role or "",
            worker.seconds,
            worker.jobs[0] if worker.jobs else None,
            len(worker.jobs) - 1,
            _text_of(worker),
            worker.memory,
            worker.pid,
        )
    for job in status.waiting:
        yield _Row(("job", job.id), "queued", job.role or "", job.seconds, job.id, 0, _short(job.request))


def _text_of(worker: WorkerStatus) -> str:
    return ("waits for a lock: " if worker.waits_for_lock else "") + _short(worker.job or "")


def _short(request: str) -> str:
    """Return a request without the name of the most frequent class, since a line is short."""
    return request[7:-2] if request.startswith(("Query('", 'Query("')) else request


def _ended(status: CrewStatus) -> int:
    return status.submitted - status.queued - status.running


def _lock(status: CrewStatus) -> Text:
    """Return who holds the write lock, or waits for it."""
    line = Text("write lock ", style="dim")
    waiting = next((worker for worker in status.workers if worker.role == "writer" and worker.waits_for_lock), None)
    if waiting is not None:
        job = f", job {waiting.jobs[0]}," if waiting.jobs else ""
        line.append(f"another connection has it; worker {waiting.id}{job} waits", "yellow")
    elif status.writing is None:
        line.append("no job of this crew has it", "none")
    else:
        number = "" if status.writing_id is None else f"job {status.writing_id} "
        line.append(f"{number}{visible(_short(status.writing))}", "none")
    return line


def _pairs(pairs: Iterable[tuple[str, str]]) -> Text:
    line = Text()
    for name, value in pairs:
        line.append(f"{name} ", "dim").append(value, "bold").append("  ")
    return line


def _p(seconds: float, times: Durations) -> str:
    return _duration(seconds) if times.count else "-"


def _duration(seconds: float) -> str:
    """Return a duration with three digits at least where they matter."""
    if seconds < 0.0095:
        return f"{seconds * 1e3:.2f} ms"
    if seconds < 0.95:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    if seconds < 5940:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _columns(rows: list[_Row], width: int) -> list[str]:
    names = ["id", "state", "for", "job"]
    if width >= _NARROW:
        if any(row.role for row in rows):
            names.insert(1, "role")
        if any(row.pid for row in rows):
            names.insert(names.index("job"), "memory")
            if width >= _WIDE - 20:
                names.insert(names.index("job"), "pid")
    return [*names, "statement"]


_SIZES: Final = {"id": -4, "role": 6, "state": 8, "for": -7, "memory": -8, "pid": -7, "job": -6, "statement": 0}
"""The width of each column; negative for one whose cells stand to the right."""


def _cell(text: str, name: str) -> str:
    size = _SIZES[name]
    return text.rjust(-size) if size < 0 else text.ljust(size)


def _titles(columns: list[str]) -> list[tuple[str, str]]:
    return [(_cell(name.upper(), name), name) for name in columns]


def _line(row: _Row, columns: list[str], width: int, *, is_selected: bool) -> Text:
    is_worker = row.key[0] == "worker"
    cells = {
        "id": str(row.key[1]) if is_worker else "",
        "role": row.role,
        "state": row.state,
        "for": _duration(row.seconds),
        "memory": "" if row.memory is None else f"{row.memory / 1e6:,.1f} MB",
        "pid": "" if row.pid is None else str(row.pid),
        "job": "" if row.job is None else f"{row.job}{f'+{row.more}' if row.more > 0 else ''}",
        "statement": row.text,
    }
    line = Text(no_wrap=True)
    for name in columns:
        style = _STYLES.get(row.state, "") if name == "state" and not is_selected else ""
        line.append(_cell(visible(cells[name]), name), style)
        line.append(" ")
    if is_selected:
        line = _fit(line, width)
        line.pad_right(max(0, width - line.cell_len))
        line.stylize("reverse")
    return line


def _fit(line: Text, width: int) -> Text:
    if line.cell_len > width:
        line = line.copy()
        line.truncate(width, overflow="ellipsis")
    return line
