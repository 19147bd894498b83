"""python -m tests.simulation: many worlds, or one of them step by step."""

import argparse
import sys
import time

from tests.simulation.run import run_worlds, silent
from tests.simulation.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--worlds", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the first one; each has the next number")
    parser.add_argument("--trace", action="store_true", help="print every step")
    options = parser.parse_args()
    began = time.perf_counter()
    with silent():
        if options.trace:
            wrong = {seed: World(seed, print).run() for seed in range(options.seed, options.seed + options.worlds)}
            wrong = {seed: what for seed, what in wrong.items() if what}
        else:
            wrong = run_worlds(options.seed, options.worlds)
    seconds = time.perf_counter() - began
    lines = [f"world {seed}: {'; '.join(what)}" for seed, what in list(wrong.items())[:20]]
    lines.append(
        f"{options.worlds} worlds from seed {options.seed}, {len(wrong)} of them wrong, "
        f"{seconds:.1f} s, {options.worlds / seconds:,.0f} worlds/s"
    )
    if wrong:
        lines.append(f"to see one again: python -m tests.simulation --worlds 1 --seed {next(iter(wrong))} --trace")
    sys.stdout.write("\n".join([*lines, ""]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
