"""Deterministic simulation: the real supervisor, workers, dispatcher, mailboxes and replies, without threads.

A seed makes a *world*: a crew on a scripted database, some clients, and some bad luck. A scheduler with that
seed decides who takes the next step, when time passes, and what goes wrong; the same seed gives the same world.

    python -m tests.simulation --worlds 100000 --seed 1       worlds with the seeds 1 to 100000
    python -m tests.simulation --worlds 1 --seed 42 --trace   one of them again, step by step

| file | what |
|---|---|
| `world.py` | the scheduler: whose turn it is, virtual time, pauses inside the crew's code at which others run |
| `crew.py` | the real classes, with the few hooks that put them on a world's stage |
| `life.py` | an actor's thread, one turn at a time |
| `luck.py` | how likely each fault is in this world; what strikes in the middle of a method |
| `database.py` | the scripted database |
| `clients.py` | what programs do with a crew |
| `listener.py` | another actor that is told of workers and suspensions |
| `ledger.py` | what was asked, run and answered, and the invariants |
"""
