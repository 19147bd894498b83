"""Chaos on real threads: callers of every kind, workers killed in every way, and nothing lost.

    python -m tests.stress.chaos --asks 1000000 --seed 1
    python -m tests.stress.chaos --asks 100000 --seed 1 --database sqlite

Each statement has a number of its own, and each connection writes down what it runs. At the end: every ask was
answered, none twice, none ran twice, the crew is at full size, and nothing is left behind. The exit code is 1
if any of that is not so. How long it took to replace the workers that died is measured, too.
"""
