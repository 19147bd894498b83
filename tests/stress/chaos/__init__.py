"""Chaos on real threads: callers of every kind, workers killed in every way, and nothing lost.

    python -m tests.stress.chaos --asks 1000000 --seed 1
    python -m tests.stress.chaos --asks 100000 --seed 1 --database sqlite

Each statement has a number of its own, and each connection writes down the numbers that it runs. At
the end these facts must hold:

* Each request was answered once.
* No statement ran twice.
* The crew is at full size.
* Nothing is left behind.

The exit code is 1 if a fact does not hold. The time until a dead worker was replaced is measured,
too.
"""
