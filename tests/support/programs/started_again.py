"""A program whose `sys.executable` starts the program again.

A frozen program and a program that embeds Python do so.
"""

import os
import sys

from shared import say

from supervisor import ChildProcess, Query, Status, Supervisor

log, sys.executable, path = os.environ["STARTS"], os.environ["AGAIN"], os.environ["DATABASE"]
with open(log, "a", encoding="utf-8") as file:
    file.write(os.environ.get("DEPTH", "first") + "\n")
os.environ["DEPTH"] = {None: "second", "second": "third"}.get(os.environ.get("DEPTH"), "deeper")

with Supervisor.start(ChildProcess(path), size=1) as db:
    try:
        db.ask(Query("SELECT 1"))
    except Exception as error:
        say(type(error).__name__, type(error.__cause__).__name__)
    say(db.ask(Status()).state)
