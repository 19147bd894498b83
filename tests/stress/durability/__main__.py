"""python -m tests.stress.durability: a campaign, its figures, and 1 if anything is broken."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.stress.durability.campaign import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.durability", description="Many kills, nothing lost.")
    parser.add_argument("--kills", type=int, default=2000, help="of children; programs are killed besides")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two kills of a child, on average")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        findings = run(Path(folder), options.kills, options.seed, workers=options.workers, pause=options.pause)
    sys.stdout.write(findings.table() + "\n")
    return 1 if findings.broken else 0


if __name__ == "__main__":
    sys.exit(main())
