"""A file that may not be opened, as a user who is not allowed everything; then it may."""

import os
import stat
import tempfile
from pathlib import Path

from shared import eventually, say, serves

from supervisor import DatabaseUnavailable, Query, RestartPolicy, Script, Supervisor


def main() -> None:
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "app.db"
        with Supervisor.start(path, size=1) as db:
            db.ask(Script("CREATE TABLE t(x); INSERT INTO t VALUES (7)"))
        path.chmod(0)
        with Supervisor.start(path, size=2, restart=RestartPolicy(backoff_initial=0.01, backoff_max=0.02)) as db:
            try:
                db.ask(Query("SELECT x FROM t"), timeout=20)
            except DatabaseUnavailable as error:
                say(type(error.__cause__).__name__)
                say(any("may not" in note for note in error.__cause__.__notes__))
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            say(eventually(lambda: serves(db)))
            say(db.ask(Query("SELECT x FROM t"), timeout=20).scalar())


main()
