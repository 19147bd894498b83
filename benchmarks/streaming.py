"""Streams: rows that are fetched as they are taken: their speed and their memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain, product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import apsw

import supervisor
from benchmarks.data import create
from benchmarks.figures import TIMES, Figure, at_least, at_most
from benchmarks.machine import folder_on_disk
from benchmarks.peers import DIRECT, Crew
from benchmarks.rounds import Effort, alternate, ratio
from supervisor import ChildProcess, Stream

__all__ = ["run"]

_SQL = {
    "rows of 5 columns": "SELECT wide.* FROM turns, wide",
    "rows of 3 columns": "SELECT id, name, age FROM turns, users",
}
_MAIN = "rows of 5 columns"
_ROWS, _CHUNKS = "`for row`", "`chunks()`"
_WANTED = {_ROWS: 0.7, _CHUNKS: 0.9}
_TURNS = 500  # times the rows of the table: five million
_FEWER = 100  # the same for measurements that are repeated
_MEASURED = """
import json, sys
from functools import partial
from pathlib import Path
from supervisor import ChildProcess, Query, Status, Stream, Supervisor

def memory(pid, field):
    lines = Path(f"/proc/{{pid}}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

with Supervisor.start({database}, size=1) as db:
    db.ask(Query("SELECT 1"))
    pids = ["self", *[worker.pid for worker in db.ask(Status()).workers if worker.pid is not None]]
    before = [memory(pid, "VmRSS") for pid in pids]
    for pid in pids:
        Path(f"/proc/{{pid}}/clear_refs").write_text("5")  # the peak counts from here
    count = sum(1 for row in db.ask(Stream({sql!r})))
    print(json.dumps([count, *[memory(pid, "VmHWM") - was for pid, was in zip(pids, before)]]))
"""


def run(effort: Effort) -> Iterator[Figure]:
    """Compare a stream with the driver's own cursor, and measure the memory of a long stream."""
    with TemporaryDirectory(dir=folder_on_disk()) as folder:
        path = create(Path(folder) / "stream.db")
        _widen(path)
        _repeat(path, effort.pick(quick=_FEWER // 5, full=_FEWER))
        yield from _speed(path, effort)
        _repeat(path, effort.pick(quick=_TURNS // 5, full=_TURNS))
        yield from _memory(path)


def _widen(path: str) -> None:
    connection = apsw.Connection(path)
    connection.execute("CREATE TABLE wide AS SELECT id, name, age, id * 1.5 AS score, NULL AS note FROM users")
    connection.close()


def _repeat(path: str, turns: int) -> None:
    """Let the statements give the rows of their table `turns` times."""
    connection = apsw.Connection(path)
    connection.execute("DROP TABLE IF EXISTS turns; CREATE TABLE turns (turn INTEGER PRIMARY KEY)")
    connection.executemany("INSERT INTO turns VALUES (?)", ((turn,) for turn in range(turns)))
    connection.close()


def _speed(path: str, effort: Effort) -> Iterator[Figure]:
    with ExitStack() as stack:
        connection = stack.enter_context(closing(apsw.Connection(path)))
        crews = {
            "": stack.enter_context(closing(Crew(path, 1))),
            "children, ": stack.enter_context(closing(Crew(ChildProcess(path), 1))),
        }
        for text, sql in _SQL.items():
            actions = {DIRECT: partial(_take, partial(connection.execute, sql))}
            for prefix, crew in crews.items():
                actions[prefix + _ROWS] = partial(_take, partial(crew.ref.ask, Stream(sql)))
                actions[prefix + _CHUNKS] = partial(_take, partial(_in_chunks, crew, sql))
            seconds = alternate(actions, effort.pick(quick=3, full=11 if text == _MAIN else 5))
            [(rows,)] = connection.execute(f"SELECT count(*) FROM ({sql})")
            for prefix, (way, least) in product(crews, _WANTED.items()):
                taken = seconds[prefix + way]
                times = ratio(seconds[DIRECT], taken)
                ours, theirs = (f"{rows / median(each) / 1e6:.2f}" for each in (taken, seconds[DIRECT]))
                seen = f"{times:.2f} {TIMES} ({ours} against {theirs} million rows/s)"
                wanted = at_least(least, TIMES) if text == _MAIN else None
                yield Figure(f"{prefix}a stream of {text}, {way}: `for row in cursor` on APSW", seen, times, wanted)


def _take(open_rows: Callable[[], Iterable[object]]) -> None:
    for _ in open_rows():
        pass


def _in_chunks(crew: Crew, sql: str) -> Iterator[object]:
    return chain.from_iterable(chunk.rows for chunk in crew.ref.ask(Stream(sql)).chunks())


def _memory(path: str) -> Iterator[Figure]:
    for prefix, database in (("", repr(path)), ("children, ", f"ChildProcess({path!r})")):
        rows, *added = _in_another_process(_MEASURED.format(database=database, sql=_SQL[_MAIN]))
        value = sum(added) / 1e6
        parts = f" ({added[0] / 1e6:.1f} here, {sum(added[1:]) / 1e6:.1f} in the child)" if added[1:] else ""
        text = f"{prefix}a stream of {rows / 1e6:g} million rows: memory that it adds at its height"
        yield Figure(text, f"{value:.1f} MB{parts}", value, at_most(20, "MB"))


def _in_another_process(code: str) -> list[int]:
    environment = {**os.environ, "PYTHONPATH": str(Path(supervisor.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
