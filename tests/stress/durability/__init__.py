"""A campaign of kill -9 against writes: every acknowledged write is in the file.

    python -m tests.stress.durability --kills 2000 --seed 1

A program (`writer.py`) lets a crew of children insert many rows at once. It also inserts pairs of
rows, in every way that makes a transaction. The program notes the outcome of each write. A thread
of the program kills children at random moments, most often the writer. The campaign kills the
program itself, again and again. At the end, the campaign checks that:

* every acknowledged row is in the file, and none is there twice;
* a pair is in the file as a whole, or not at all;
* a write with the outcome `executed=False` is not in the file;
* the file is sound;
* no child remains.

The exit code is 1 if one of these is false.
"""
