"""A campaign of truth: timeouts and cancels at every moment of every kind of write, and a look at the file afterwards.

    python -m tests.stress.truth --tries 100000 --seed 1

A crew is asked for writes of many kinds, one at a time or several that share a commit, on threads
and in children. One of them is interrupted at a moment that is swept over its own length, most
often close to its end. Each write has a number of its own, so another connection can say which
writes are in the file. A caller who got an answer, or an error with `executed=True`, must find the
write there, once and whole; `executed=False` and errors of the driver mean that nothing of it is
there; `executed=None` that it is there whole or not at all. The neighbours of an interrupted write
are answered. The exit code is 1 if any of that is not so."""
