"""Programs: the requests to one crew, drawn by hypothesis.

A program with a wrong answer is made as short as possible.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.sqlite.differential.comparison import Difference, run
from tests.sqlite.differential.crews import Pair, pair_of
from tests.sqlite.differential.drawn import FORMS, SETUP, draw_statement
from tests.sqlite.differential.expected import Expected
from tests.sqlite.differential.shortest import shortest
from tests.sqlite.differential.statements import Asked, Statement

STATEMENTS = 8
"""The most statements of one request."""


@dataclass
class Campaign:
    """Programs for one kind of crew. A difference raises `AssertionError` with a short program."""

    kind: str
    form: str | None = None
    """The form of most requests; `None` for any form."""
    makes_short: bool = True
    """Whether to search for the shortest program."""
    clean: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    """How many statements ran clean, by kind and form."""

    @property
    def requests(self) -> int:
        """The number of requests in a program. It is high where a crew takes long to start."""
        return 40 if self.kind == "child" else 10

    def run(self, random: Random) -> None:
        """Draw a program, and run it on a new crew."""
        program = list[Asked]()
        try:
            with pair_of(self.kind) as pair:
                for form in self._forms(random):
                    asked = self._request(random, pair, form, program)
                    program.append(asked)
                    self.clean[self.kind, form] += len(asked.statements)
        except Difference as difference:
            asked, wrong = difference.args
            program.append(asked)
            if self.makes_short:
                program, wrong = shortest(self.kind, program, wrong)
            shown = "\n".join(f"{number}. {asked}" for number, asked in enumerate(program, 1))
            raise AssertionError(f"a crew of kind {self.kind!r}\n{shown}\n{wrong}") from None

    def _forms(self, random: Random) -> Iterator[str]:
        yield "script"
        for _ in range(self.requests):
            is_free = self.form is None or not random.randrange(4)
            yield FORMS[random.randrange(len(FORMS))] if is_free else str(self.form)

    def _request(self, random: Random, pair: Pair, form: str, program: list[Asked]) -> Asked:
        most = random.randrange(1, STATEMENTS + 1)
        earlier = [statement for asked in program for statement in asked.statements]

        def next_one(right: Expected, before: list[Statement], sees_rowid: bool) -> Statement | None:
            if not earlier and not before:
                return SETUP
            if len(before) == most:
                return None
            every = [*earlier, *before]
            return draw_statement(random, form, right, every, in_memory=pair.oracle.in_memory, sees_rowid=sees_rowid)

        return run(pair, form, next_one)


def drawn_by_hypothesis(run: Callable[[Random], None], programs: int, name: str | None = None) -> None:
    """Run a number of programs: always the same ones, or the programs of a seed with this name."""
    test = given(st.randoms(use_true_random=False))(run)
    # Hypothesis would need minutes to make a program short: `shortest` leaves out statements
    # instead.
    profile = settings(
        max_examples=programs,
        deadline=None,
        database=None,
        derandomize=name is None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    profile(test if name is None else seed(name)(test))()
