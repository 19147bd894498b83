"""The command line of the benchmarks: see `python -m benchmarks --help`."""

import argparse
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import (
    cancelling,
    children,
    crew_size,
    deadlines,
    depth,
    duckdb,
    idling,
    overload,
    points,
    postgres,
    ray,
    reading,
    scans,
    shell,
    starting,
    streaming,
    ticks,
    write_log,
    writing,
)
from benchmarks.figures import Figure, table
from benchmarks.machine import describe
from benchmarks.plot import Waits, draw, draw_waits
from benchmarks.rounds import Effort

BENCHMARKS: dict[str, Callable[[Effort], Iterable[Figure | Waits]]] = {
    "points": points.outstanding,
    "one-by-one": points.one_by_one,
    "scans": scans.run,
    "deadlines": deadlines.run,
    "ticks": ticks.run,
    "overload": overload.run,
    "cancel": cancelling.run,
    "depth": depth.run,
    "memory": depth.memory,
    "workers": crew_size.run,
    "start": starting.first_answer,
    "import": starting.importing,
    "idle": idling.run,
    "child-rows": children.fetching,
    "child-points": children.points,
    "child-millions": children.millions,
    "child-cost": children.cost,
    "write-group": writing.grouped,
    "write-readers": writing.beside_readers,
    "write-lone": writing.lone,
    "read-under-write": reading.run,
    "write-log": write_log.run,
    "stream": streaming.run,
    "shell": shell.run,
    "postgres": postgres.run,
    "duckdb": duckdb.run,
    "ray": ray.run,
}
README = Path(__file__).with_name("README.md")
WAITS = Path(__file__).with_name("overload.svg")
BEGIN, END = "<!-- table -->", "<!-- end -->"


def main() -> None:
    """Measure, print the table, and write or draw it if an option says so."""
    options = _options()
    effort = Effort(quick=options.quick)
    found: list[Figure | Waits] = []
    for name in options.only or BENCHMARKS:
        start = time.perf_counter()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        found += BENCHMARKS[name](effort)
        print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr)
    figures = [figure for figure in found if isinstance(figure, Figure)]
    text = f"{textwrap.fill(describe(), 100)}\n\n{table(figures)}"
    print(text)
    if options.write:
        _write(text)
        for waits in found:
            if isinstance(waits, Waits):
                _plot(lambda waits=waits: draw_waits(waits, WAITS, describe()))
    if options.plot is not None:
        _plot(lambda: draw(figures, options.plot, describe()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare querycrew with its peers.")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="measure for a tenth of the time, and more roughly")
    parser.add_argument("--plot", metavar="FILE.png", help="draw a picture; needs matplotlib")
    parser.add_argument("--write", action="store_true", help="put table and picture into benchmarks/README.md")
    return parser.parse_args()


def _write(text: str) -> None:
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{README} has no {BEGIN} … {END}; nothing was written", file=sys.stderr)
        return
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _plot(draw_it: Callable[[], None]) -> None:
    try:
        draw_it()
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
