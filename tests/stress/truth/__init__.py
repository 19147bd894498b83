"""A campaign of truth: timeouts and cancels at every moment of every write, checked by the file.

    python -m tests.stress.truth --tries 100000 --seed 1

A crew runs writes of many kinds, one at a time or several that share a commit, on threads and in
children. One of them is interrupted at a moment that is swept over its length, most often close to
its end. Each write has a number of its own, so another connection can see the writes that are in
the file.

* After an answer, or an error with `executed=True`, the write is there, once and whole.
* After `executed=False`, or an error of the driver, nothing of the write is there.
* After `executed=None` the write is there whole or not at all.
* The neighbours of an interrupted write are answered.

The exit code is 1 if one of these is not so.
"""
