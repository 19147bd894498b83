"""A simulated world: the real crew with lanes, batches, children and transactions, step by step.

A seed makes a *world*: a crew on a scripted database, some clients, and some faults. Each thread
becomes a task. One task runs at a time. The seed decides three things: at which steps of the crew's
own code another task goes on, when time passes, and which faults happen. The same seed gives the
same world.

    python -m tests.worlds --worlds 100000 --seed 1       worlds with the seeds 1 to 100000
    python -m tests.worlds --worlds 1 --seed 42 --trace   one of them again, step by step

| file | content |
|---|---|
| `steps.py` | the crew's code with a step wherever CPython may switch threads |
| `stage.py` | tasks, the scheduler, virtual time |
| `system.py` | locks, queues, threads and clocks as the crew knows them, on the stage |
| `children.py` | child processes: both real ends of a child's connection, with pipes in memory |
| `database.py` | the scripted database: readers, a writer that commits several jobs at once |
| `requests.py` | the requests of a world |
| `fault_plan.py` | how likely each fault is |
| `crew.py` | the real classes, with a clock of the stage and an ear for the history |
| `clients.py`, `checkouts.py`, `trouble.py` | programs: they ask, hold a worker, make trouble |
| `listener.py` | another actor, which hears of workers and suspensions |
| `history.py` | all requests, starts and answers, and the checks that run meanwhile |
| `answers.py`, `checks.py` | the checks at the end |
| `world.py` | all of it together |
| `mutants.py` | bugs that the worlds have to find |
"""
