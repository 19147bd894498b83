"""A campaign of kill -9 against writes: each acknowledged row is in the file after any kill.

    python -m tests.stress.durability --kills 2000 --seed 1

A program (`writer.py`) lets a crew of children insert rows, many at once, and pairs of rows in
every way that makes a transaction. It writes down the answer to each write. A thread of it kills
its children, most often the child that writes, at random moments. The campaign kills the program
itself, again and again. At the end these facts must hold:

* Each acknowledged row is in the file, and no row twice.
* A pair is there wholly or not at all.
* A write that ended with `executed=False` is absent.
* The file is sound.
* No child is left.

The exit code is 1 if a fact does not hold.
"""
