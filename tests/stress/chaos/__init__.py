"""Chaos on real threads: callers of every kind, and workers killed in every way. No job is lost.

    python -m tests.stress.chaos --asks 1000000 --seed 1
    python -m tests.stress.chaos --asks 100000 --seed 1 --database sqlite

Each statement has a number of its own, and each connection notes the numbers that it runs. At the
end, the run checks that:

* every request was answered, and none was answered twice;
* no statement ran twice;
* the crew has its full size;
* no thread, actor or file descriptor remains.

The exit code is 1 if one of these is false. The run also measures the time from the death of a
worker until its replacement is up."""
