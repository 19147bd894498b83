"""A campaign of truth: it interrupts each kind of write at every moment, and checks the file.

    python -m tests.stress.truth --tries 100000 --seed 1

A crew runs writes of many kinds, on threads and in children: a single write, or several writes
that share a commit. A timeout or a cancel interrupts one write. The campaign sweeps the moment of
the interrupt over the length of the write; most moments are close to the end. Each write has a
number of its own, so another connection can tell which writes are in the file. The outcome of a
write must agree with the file:

* after an answer, or an error with `executed=True`, the write is in the file, once and whole;
* after an error with `executed=False`, or an error of the driver, no part of the write is in the
  file;
* after an error with `executed=None`, the whole write is in the file, or no part of it.

The neighbours of an interrupted write get their answers. The exit code is 1 if one of these is
false."""
