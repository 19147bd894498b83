"""python -m tests.sqlite.differential: many statements, run by crews and by a plain connection.

The exit code is 1 if an answer is wrong.
"""

import argparse
import logging
import sys
import time
from collections import Counter
from itertools import count

from hypothesis.errors import Flaky

from tests.sqlite.differential.campaign import Campaign, drawn_by_hypothesis
from tests.sqlite.differential.crews import JOURNALS
from tests.sqlite.differential.drawn import FORMS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sqlite.differential", description=__doc__)
    parser.add_argument("--statements", type=int, default=100_000, help="how many")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the first programs; the next programs have the next numbers"
    )
    parser.add_argument("--kind", choices=JOURNALS, help="of crew; all of them if it is not given")
    parser.add_argument("--form", choices=FORMS, help="of most requests; any form if it is not given")
    options = parser.parse_args()
    logging.disable()
    kinds, clean, wrong = [options.kind] if options.kind else list(JOURNALS), Counter[tuple[str, str]](), ""
    began = time.perf_counter()
    for number in count(options.seed):
        try:
            for kind in kinds:
                campaign = Campaign(kind, options.form, clean=clean)
                drawn_by_hypothesis(campaign.run, 1000 // campaign.requests, f"{kind} {number}")
        except (AssertionError, Flaky) as difference:
            form = f" --form {options.form!r}" if options.form else ""
            again = f"python -m tests.sqlite.differential --statements 1 --seed {number} --kind {kind!r}{form}"
            seen = "\n".join(map(str, (difference, *getattr(difference, "exceptions", ()))))
            wrong = f"\n{seen}\nto see it again: {again}\n"
        if wrong or clean.total() >= options.statements:
            break
    sys.stdout.write(f"{_table(kinds, clean)}\nin {time.perf_counter() - began:.0f} s\n{wrong}")
    return 1 if wrong else 0


def _table(kinds: list[str], clean: "Counter[tuple[str, str]]") -> str:
    """Return how many statements ran clean, by form and kind."""
    rows = [["clean", *kinds, "all"]]
    for form in [*FORMS, "all"]:
        numbers = [sum(n for (k, f), n in clean.items() if k == kind and form in (f, "all")) for kind in kinds]
        rows.append([form, *(f"{number:,}" for number in (*numbers, sum(numbers)))])
    return "\n".join(f"{row[0]:<22}" + "".join(f"{cell:>18}" for cell in row[1:]) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
