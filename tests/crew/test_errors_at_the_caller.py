"""An error of a statement shows its caller's line and the place in the SQL, and no inside."""

import asyncio
import os
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import apsw
import pytest

from supervisor import Call, ChildProcess, Query, QueryTimeout, Script, SQLite, Stream, Transaction
from tests.support.common import RUNAWAY

ROOT = Path(__file__).parents[2]
SQL = "SELECT name,\n  nope FROM sqlite_schema"
SECRET = "a parameter"
MARKED = "\n  line 2:   nope FROM sqlite_schema\n            ^"


def places(error):
    """Return the file and the function of each frame of a traceback."""
    return [(Path(frame.filename).name, frame.name) for frame in traceback.extract_tb(error.__traceback__)]


def asked(db):
    db.ask(Query(SQL))


def got(db):
    db.ask(Query(SQL), block=False).get()


def mapped(db):
    db.ask(Query(SQL), block=False).map(len).get()


def awaited(db):
    async def wait():
        await db.ask(Query(SQL), block=False)

    asyncio.run(wait())


def in_a_transaction(db):
    with db.transaction() as tx:
        tx.ask(Query(SQL))


def streamed(db):
    for _ in db.ask(Stream(SQL)):
        pass


def in_a_script(db):
    db.ask(Script(f"SELECT 1; {SQL}\n; SELECT 2"))


def in_a_list(db):
    db.ask(Transaction([Query("SELECT 1"), Query(SQL)]))


WAYS = [asked, got, mapped, awaited, in_a_transaction, streamed, in_a_script, in_a_list]


@pytest.fixture(params=[SQLite, lambda path: ChildProcess(SQLite(path))], ids=["threads", "children"])
def db(request, start, path):
    return start(request.param(path), size=1)


@pytest.mark.parametrize("way", WAYS)
def test_the_traceback_ends_at_the_callers_line_and_the_note_marks_the_place(db, way):
    with pytest.raises(apsw.SQLError, match="no such column: nope") as caught:
        way(db)
    error = caught.value
    ours = [file for file, _ in places(error) if file != Path(__file__).name and "asyncio" not in file]
    assert {file for file, _ in places(error)}.isdisjoint({"ref.py", "reply.py", "session.py", "stream.py"}), ours
    assert places(error)[-1][0] == Path(__file__).name
    assert error.__context__ is None
    assert type(error) is apsw.SQLError
    marked = [note for note in error.__notes__ if note.endswith(MARKED)]
    assert len(marked) == 1, error.__notes__


def test_rows_that_fail_in_the_middle_point_at_the_loop(db):
    counted = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT "
    with pytest.raises(apsw.SQLError, match="overflow") as caught:
        for _ in db.ask(Stream(counted + "abs(iif(i = 4000, -9223372036854775808, i)) FROM n", chunk=100)):
            pass
    assert [file for file, _ in places(caught.value)] == [Path(__file__).name]


def test_the_callers_own_functions_stay_in_the_traceback(start, path):
    db = start(path)
    db.ask(Query("CREATE TABLE t(a)"))

    def fails(connection):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        db.ask(Call(fails))
    assert [name for _, name in places(caught.value)] == [
        "test_the_callers_own_functions_stay_in_the_traceback",
        "fails",
    ]
    with pytest.raises(LookupError, match="mine") as caught:
        db.ask(Query("SELECT 1"), block=False).map(fails).get()
    assert [name for _, name in places(caught.value)][-1] == "fails"


def test_an_error_of_the_crew_points_at_the_caller_and_keeps_its_cause(start, path):
    db = start(path, size=1)
    with pytest.raises(QueryTimeout) as caught:
        db.ask(Query(RUNAWAY, timeout=0.05))
    assert [file for file, _ in places(caught.value)] == [Path(__file__).name]
    assert isinstance(caught.value.__cause__, apsw.InterruptError)
    with pytest.raises(TypeError, match="takes requests") as refused:
        db.ask("SELECT 1")
    assert [file for file, _ in places(refused.value)] == [Path(__file__).name]


def test_an_error_that_many_threads_get_does_not_grow(start, path):
    reply = start(path).ask(Query(SQL), block=False)
    reply.exception()
    lengths = set()

    def get():
        for _ in range(50):
            try:
                reply.get()
            except apsw.SQLError as error:
                lengths.add((len(error.__notes__), len(places(error)) < 10))

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == {(1, True)}
    error = reply.exception()
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, again.__notes__) == (apsw.SQLError, error.args, error.__notes__)


def test_an_error_object_that_is_raised_again_gets_each_note_once(start, path):
    db, error = start(path), ValueError("the same object")

    def fails(connection):
        raise error

    for _ in range(3):
        with pytest.raises(ValueError, match="the same object"):
            db.ask(Call(fails))
    assert len(error.__notes__) == 1


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT 日本, nope", "  SELECT 日本, nope\n         ^"),
        ("SELECT 'é日', nope", "  SELECT 'é日', nope\n                ^"),
        ("SELECT '\x1b[31m\x07\t', nope", "  SELECT '·[31m· ', nope\n                    ^"),
        ("SELECT e\u0301 || nope FROM (SELECT 1 AS e\u0301)", "  SELECT e\u0301 || nope FROM"),
        (
            f"SELECT {'1, ' * 100}nope{', 2' * 100}",
            f"  …{'1, ' * 12}nope{', 2' * 7},…\n{' ' * 39}^",
        ),
    ],
)
def test_the_line_is_cut_and_holds_visible_text_alone(start, sql, shown):
    db = start()
    with pytest.raises(apsw.SQLError) as caught:
        db.ask(Query(sql))
    assert shown in caught.value.__notes__[0]
    assert all(char.isprintable() or char == "\n" for char in caught.value.__notes__[0])


def test_no_parameter_stands_in_a_note(start):
    with pytest.raises(apsw.SQLError) as caught:
        start().ask(Query("SELECT ?, nope", (SECRET,)))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# --- the text on the screen -------------------------------------------------------------------

PROGRAM = f"""\
from supervisor import Query, Supervisor

def test_it():
    with Supervisor.start() as db:
        db.ask(Query({SQL!r}))
"""


def run(folder, *arguments, stdin=None, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "QUERYCREW"))}
    environment |= {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder), "NO_COLOR": "1", **variables}
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout + ran.stderr


def test_plain_python_shows_the_callers_line_and_nothing_of_the_inside(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM + "\ntest_it()\n")
    shown = run(tmp_path, "program.py")
    assert shown.count("File ") == 2, shown  # the module, and `test_it`
    assert shown.rstrip().endswith(f"Query('SELECT name, nope FROM sqlite_schema'){MARKED}"), shown
    assert "ref.py" in run(tmp_path, "program.py", QUERYCREW_DEBUG="1")
    assert "ref.py" not in run(tmp_path, "program.py", QUERYCREW_DEBUG="0")


def test_pytest_shows_the_callers_line_and_nothing_of_the_inside(tmp_path):
    (tmp_path / "test_program.py").write_text(PROGRAM)
    shown = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_program.py")
    assert f">           db.ask(Query({SQL!r}))" in shown, shown
    assert "E                       ^" in shown
    assert "test_program.py:5: SQLError" in shown
    assert "actors" not in shown


def test_ipython_shows_the_callers_line_and_nothing_of_the_inside(tmp_path):
    pytest.importorskip("IPython")
    (tmp_path / "program.py").write_text(PROGRAM + "\ntest_it()\n")
    shown = run(tmp_path, "-m", "IPython", "--colors=nocolor", "--no-banner", stdin="%run program.py\n")
    assert "SQLError: no such column: nope" in shown, shown
    assert MARKED in shown
    assert "test_it()" in shown
    for inside in ("actors", "hidden", "During handling"):
        assert inside not in shown
