"""DuckDB: scans of some million rows, by tuples and by columns, with and without a crew."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from benchmarks.figures import TIMES, Figure, Wanted, at_least
from benchmarks.machine import folder_on_disk
from benchmarks.peers import Crew
from benchmarks.rounds import Effort, alternate, ratio
from supervisor import ChildProcess, DuckDB, Query, Stream, SupervisorRef

__all__ = ["run"]

_SCAN = "SELECT sum(a * b), count(*) FROM numbers WHERE a % 7 <> 3"
_ROWS = "SELECT a, b, name FROM numbers"
_CHUNK = 50_000
_TIMES = 10  # times that a short action runs in each round


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the crew with a direct connection to the same file."""
    millions = effort.pick(quick=1, full=2)
    with TemporaryDirectory(dir=folder_on_disk()) as folder:
        path = Path(folder) / "numbers.duckdb"
        with duckdb.connect(path) as connection:
            connection.execute(
                "CREATE TABLE numbers AS SELECT i AS a, i * 1.5 AS b, 'name ' || i % 1000 AS name "
                f"FROM range({millions * 1_000_000}) t(i)"
            )
        yield from _compared(path, millions, effort.pick(quick=3, full=5))
        yield from _children(path, millions, effort.pick(quick=2, full=3))


def _compared(path: Path, millions: int, rounds: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        crew = stack.enter_context(closing(Crew(DuckDB(path), 2))).ref
        # The first connection of the process has opened the file: this one shares it.
        crew.ask(Query("SELECT 1"))
        direct = stack.enter_context(duckdb.connect(path))
        pairs: dict[str, tuple[Callable[[], object], Callable[[], object], Wanted | None]] = {
            "a scan that returns one row": (
                lambda: [direct.execute(_SCAN).fetchall() for _ in range(_TIMES)],
                lambda: [crew.ask(Query(_SCAN)).rows for _ in range(_TIMES)],
                at_least(0.95, TIMES),
            ),
            "all rows as tuples": (
                lambda: direct.execute(_ROWS).fetchall(),
                lambda: crew.ask(Query(_ROWS)).rows,
                at_least(0.95, TIMES),
            ),
            "all rows as columns": (
                lambda: [direct.sql(_ROWS).to_arrow_table().num_rows for _ in range(_TIMES)],
                lambda: [crew.ask(Query(_ROWS, arrow=True)).to_arrow().num_rows for _ in range(_TIMES)],
                at_least(0.95, TIMES),
            ),
            f"a stream of columns, {_CHUNK} rows a chunk": (
                lambda: [_count(direct.sql(_ROWS).to_arrow_reader(_CHUNK)) for _ in range(_TIMES)],
                lambda: [_count(_tables(crew)) for _ in range(_TIMES)],
                at_least(0.95, TIMES),
            ),
            "a stream of tuples, 2000 rows a chunk": (
                lambda: _fetch(direct.execute(_ROWS)),
                lambda: [len(chunk) for chunk in crew.ask(Stream(_ROWS)).chunks()],
                None,
            ),
        }
        for name, (theirs, ours, wanted) in pairs.items():
            seconds = alternate({"direct": theirs, "crew": ours}, rounds)
            times = ratio(seconds["direct"], seconds["crew"])
            shown = " against ".join(f"{median(seconds[way]) * 1000:.0f}" for way in ("crew", "direct"))
            title = f"DuckDB, {millions} million rows, {name}: direct call"
            yield Figure(title, f"{times:.2f} {TIMES} ({shown} ms)", times, wanted)


def _children(path: Path, millions: int, rounds: int) -> Iterator[Figure]:
    """Compare columns with tuples on their way from a child process."""
    with closing(Crew(ChildProcess(DuckDB(path, read_only=True)), 1)) as peer:
        crew = peer.ref
        seconds = alternate(
            {
                "tuples": lambda: crew.ask(Query(_ROWS)).rows,
                "columns": lambda: crew.ask(Query(_ROWS, arrow=True)).to_arrow(),
            },
            rounds,
        )
    times = ratio(seconds["tuples"], seconds["columns"])
    shown = " against ".join(f"{median(seconds[way]) * 1000:.0f}" for way in ("columns", "tuples"))
    title = f"DuckDB in a child, {millions} million rows, all of them as columns: as tuples"
    yield Figure(title, f"{times:.2f} {TIMES} ({shown} ms)", times, at_least(3, TIMES))


def _tables(crew: SupervisorRef) -> Iterator[Any]:
    return (chunk.to_arrow() for chunk in crew.ask(Stream(_ROWS, chunk=_CHUNK, arrow=True)).chunks())


def _count(tables: Iterable[Any]) -> int:
    return sum(table.num_rows for table in tables)


def _fetch(cursor: duckdb.DuckDBPyConnection) -> None:
    while cursor.fetchmany(2000):
        pass
