"""How long the state machines are run, to look for what is wrong and to find what was planted."""

from hypothesis import Phase, settings

# Without the phase that explains a failure: it traces every line.
LOOK = settings(
    max_examples=300, stateful_step_count=50, deadline=None, phases=(Phase.reuse, Phase.generate, Phase.shrink)
)
# Always the same examples, so that a planted bug is found in each run or in none.
FIND = settings(
    max_examples=1000,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    report_multiple_bugs=False,
)
