"""python -m tests.stress.truth: a campaign, its figures, and 1 if anything is wrong."""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from tests.stress.truth.campaign import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.truth", description="Many interrupts, no lie.")
    parser.add_argument("--tries", type=int, default=100_000, help="how many writes are interrupted")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable()  # of the deaths of children without memory
    with tempfile.TemporaryDirectory() as folder:
        findings = run(Path(folder), options.tries, options.seed)
    sys.stdout.write(findings.table() + "\n")
    return 0 if findings.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
