"""A campaign of kill -9 against writes: what was acknowledged is in the file, whatever is killed at whatever moment.

    python -m tests.stress.durability --kills 2000 --seed 1

A program (`writer.py`) lets a crew of children insert rows, many at once, and pairs of rows in every way that makes a
transaction, and writes down what it is told of each one. A thread of it kills its children, most often the one that
writes, at random moments; the campaign kills the program itself, again and again. At the
end every acknowledged row must be in the file, none twice, a pair wholly or not at all, what was said to be undone
(`executed=False`) must be absent, the file sound, and no child left. The exit code is 1 if any of that is not so.
"""
