"""A process that forks while jobs wait for a crew's writer.

The child refuses, the parent goes on.
"""

import os
import signal
import sys
import warnings

from shared import say

from supervisor import Call, Query, Script, Supervisor, SupervisorStopped
from tests.support.groups import Held

# Later Pythons warn of forks in a process with threads. This program makes such forks.
warnings.simplefilter("ignore", DeprecationWarning)

MOVES = "WITH more(n) AS (VALUES (?)) INSERT INTO kept SELECT n FROM more"


def main(path: str) -> None:
    held = Held()
    with Supervisor.start(path, size=1) as db:
        db.ask(Script("CREATE TABLE kept(number)"))
        replies = [db.ask(Call(held), block=False)]
        assert held.entered.wait(20)
        replies += [db.ask(Query(MOVES, (number,)), block=False) for number in range(10)]
        assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 0  # all of them have moved by now
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            refused = [isinstance(reply.exception(0), SupervisorStopped) for reply in replies]
            late = [db.ask(Query(sql), block=False).exception(0) for sql in (MOVES, "SELECT 1", "DELETE FROM kept")]
            os._exit(0 if all(refused) and all(isinstance(error, SupervisorStopped) for error in late) else 1)
        _, status = os.waitpid(child, 0)
        say("child", os.waitstatus_to_exitcode(status))
        held.opened.set()
        for reply in replies:
            reply.get(timeout=20)
        say("parent", db.ask(Query("SELECT count(*) FROM kept")).scalar())


main(sys.argv[1])
