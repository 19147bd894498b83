"""python -m tests.worlds: many worlds, or one of them step by step."""

import argparse
import sys
import time

from tests.worlds.run import Findings, run_worlds, silent
from tests.worlds.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.worlds", description=__doc__)
    parser.add_argument("--worlds", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the first one; each has the next number")
    parser.add_argument("--trace", action="store_true", help="print every step")
    options = parser.parse_args()
    began = time.perf_counter()
    with silent():
        if options.trace:
            findings = Findings()
            for seed in range(options.seed, options.seed + options.worlds):
                world = World(seed, print)
                world.run()
                findings.add(world)
        else:
            findings = run_worlds(options.seed, options.worlds)
    sys.stdout.write("\n".join([*_report(findings, options, time.perf_counter() - began), ""]))
    return 1 if findings.wrong else 0


def _report(findings: Findings, options: argparse.Namespace, seconds: float) -> list[str]:
    wrong = findings.wrong
    lines = [f"world {seed}: {'; '.join(what)}" for seed, what in list(wrong.items())[:20]]
    lines += [f"{number:10,} {end}" for end, number in findings.ends.most_common()]
    lines.append(
        f"{options.worlds} worlds from seed {options.seed}, {findings.requests:,} requests, {len(wrong)} worlds wrong, "
        f"{seconds:.1f} s, {options.worlds / seconds:,.0f} worlds/s"
    )
    if wrong:
        lines.append(f"to see one again: python -m tests.worlds --worlds 1 --seed {next(iter(wrong))} --trace")
    return lines


if __name__ == "__main__":
    sys.exit(main())
