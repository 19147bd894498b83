"""python -m tests.chaos: a run, its figures, and 1 if anything is broken."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.databases import NumberedSQLite, Scripted
from tests.chaos.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Many asks, many kills, nothing lost.")
    parser.add_argument("--asks", type=int, default=100_000, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=("scripted", "sqlite"), default="scripted")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.002, help="seconds between two kills, on average")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Scripted() if options.database == "scripted" else NumberedSQLite(Path(folder) / "chaos.db")
        findings = run(options.asks, options.seed, database, workers=options.workers, pause=options.pause)
    sys.stdout.write(findings.table() + "\n")
    return 1 if findings.broken else 0


if __name__ == "__main__":
    sys.exit(main())
