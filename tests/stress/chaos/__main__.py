"""python -m tests.stress.chaos: a run, its figures, and 1 if anything is broken."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.stress.chaos.databases import Scripted
from tests.stress.chaos.files import File
from tests.stress.chaos.run import run

_KINDS = ("scripted", "sqlite", "children")
_SLOW_TO_START = 150  # times as long as a thread takes: a child that is killed too early serves nobody


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.chaos", description="Many asks, many kills, nothing lost."
    )
    parser.add_argument("--asks", type=int, default=100_000, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=("all", *_KINDS), default="all", help="each gets its share of the asks")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.002, help="seconds between two kills, on average")
    options = parser.parse_args()
    kinds = _KINDS if options.database == "all" else (options.database,)
    is_broken = False
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            database = Scripted() if kind == "scripted" else File(Path(folder) / "c.db", in_children=kind == "children")
            asks, pause = options.asks // len(kinds), options.pause * (_SLOW_TO_START if kind == "children" else 1)
            findings = run(asks, options.seed, database, workers=options.workers, pause=pause)
        sys.stdout.write(f"{kind}\n{findings.table()}\n\n")
        is_broken |= bool(findings.broken)
    return 1 if is_broken else 0


if __name__ == "__main__":
    sys.exit(main())
