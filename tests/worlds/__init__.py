"""One simulated world: the real crew with lanes, batches, children and transactions, one step at a time.

A seed makes a *world*: a crew on a scripted database, some clients, and some bad luck. Whatever would be a thread is
a task. One task runs at a time, and the seed decides at which steps of the crew's own code another goes on, when time
passes, and what goes wrong. The same seed gives the same world.

    python -m tests.worlds --worlds 100000 --seed 1       worlds with the seeds 1 to 100000
    python -m tests.worlds --worlds 1 --seed 42 --trace   one of them again, step by step

| file | what |
|---|---|
| `steps.py` | the crew's code with a step wherever CPython may switch threads |
| `stage.py` | tasks, the scheduler, virtual time |
| `system.py` | locks, queues, threads and clocks as the crew knows them, on the stage |
| `children.py` | child processes: pipes in memory between the real two ends of a child's connection |
| `database.py` | the scripted database: readers, a writer that commits several jobs at once, steps |
| `requests.py` | the requests of a world |
| `luck.py` | how likely each fault is |
| `crew.py` | the real classes, with a clock of the stage and an ear for the ledger |
| `clients.py`, `checkouts.py`, `trouble.py` | what programs do: ask, hold a worker, make trouble |
| `listener.py` | another actor that is told of workers and suspensions |
| `ledger.py` | what was asked and what ran, and what must not be seen meanwhile |
| `answers.py`, `checks.py` | what must be true at the end |
| `world.py` | all of it together |
| `plants.py` | bugs that the worlds have to find |
"""
