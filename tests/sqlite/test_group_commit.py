"""Group commit: small writes that wait together are one transaction.

Each caller gets the answer that its request would get alone.
"""

from collections import deque

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.databases.sqlite import writer as sqlite_writer
from actors.databases.sqlite.lock_wait import LockWait
from actors.values.errors import ConnectionLost
from supervisor import Call, Query, Result, Script, Transaction
from tests.support.common import PATIENCE
from tests.support.groups import Together, Writer, counted, errors, fail, insert

INTERRUPTED = ("InterruptedError", "InterruptError")


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch):
    """Let a group take a minute, so that a slow machine does not end it early."""
    monkeypatch.setattr(sqlite_writer, "_LONGEST", 60.0)


@pytest.fixture
def make(path):
    """Make writers, and close them at the end of the test."""
    made = []

    def make_one(*setup, **options):
        made.append(Writer(path.with_name(f"{len(made)}.db"), *setup, **options))
        return made[-1]

    yield make_one
    for writer in made:
        writer.close()


@pytest.fixture
def writer(make):
    return make()


# --- together -----------------------------------------------------------------------------


def test_writes_that_wait_together_are_one_transaction(writer):
    with counted(writer.path) as written:
        answers = writer.run(*map(insert, range(20)))
    assert errors(answers) == [None] * 20
    assert [answer.value.lastrowid for answer in answers] == [*range(20)]
    assert {answer.value.rowcount for answer in answers} == {1}
    assert written.count == 1
    assert writer.rows() == [*range(20)]


def test_no_caller_is_answered_before_the_commit(writer):
    seen = []
    writer.before = lambda position: seen.append(len(writer.rows()))
    writer.run(*map(insert, range(5)))
    assert seen == [0, 0, 0, 0, 0], "a row was visible before the commit"
    assert writer.groups == [[0, 1, 2, 3, 4]]


def test_a_lone_write_does_not_wait_for_other_writes(writer):
    with counted(writer.path) as written:
        for number in range(3):
            [answer] = writer.run(insert(number))
            assert answer.error is None
    assert written.count == 3


def test_a_group_that_has_taken_long_takes_no_more_writes(writer, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "_LONGEST", -1.0)
    with counted(writer.path) as written:
        assert errors(writer.run(*map(insert, range(6)))) == [None] * 6
    assert writer.groups == [[0], [1], [2], [3], [4], [5]]
    assert written.count == 6


def test_a_text_that_was_run_alone_shares_later(writer):
    writer.run(insert(1))
    with counted(writer.path) as written:
        assert errors(writer.run(*map(insert, range(2, 7)))) == [None] * 5
    assert written.count == 1
    assert writer.rows() == [1, 2, 3, 4, 5, 6]


def test_a_text_that_was_run_alone_shares_later_in_a_transaction_and_many_times(writer):
    add = Query("INSERT INTO kept(number) SELECT 1 + max(number) FROM kept")
    every = [insert(0), add, Transaction([add, add]), Query("INSERT INTO kept(number) VALUES (?)", many=[(50,), (51,)])]
    for request in every[:1] * 1 + every[1:]:
        assert errors(writer.run(request)) == [None]
    with counted(writer.path) as written:
        assert errors(writer.run(add, Transaction([add, add]), add)) == [None] * 3
    assert written.count == 1


def test_more_texts_than_the_connection_remembers_share_commits(writer):
    for number in range(0, 2000, 50):
        texts = [Query(f"INSERT INTO kept(number) VALUES ({number + more})") for more in range(50)]
        assert errors(writer.run(*texts)) == [None] * 50
    assert writer.rows() == [*range(2000)]
    assert len(writer.connection._known) < 2000
    with counted(writer.path) as written:
        assert errors(writer.run(*(insert(number) for number in range(2000, 2020)))) == [None] * 20
    assert written.count == 1


def test_more_texts_than_the_connection_remembers_are_in_a_group_that_begins_again(make):
    writer = make("CREATE TABLE kept(number, what)")  # it would hold a row twice if its insert ran twice
    number = 0
    for _ in range(15):
        texts = [Query(f"INSERT INTO kept(number) VALUES ({number + more})") for more in range(60)]
        number += 60
        answers = writer.run(*texts[:50], Query("INSERT OR ROLLBACK INTO kept SELECT 1, abs(-9223372036854775808)"))
        assert errors(answers)[:50] == [None] * 50
        assert errors(writer.run(*texts[50:])) == [None] * 10
    assert writer.rows() == [*range(number)]


def test_writes_run_in_the_order_of_asking(make):
    writer = make("CREATE TABLE kept(id INTEGER PRIMARY KEY AUTOINCREMENT, number UNIQUE); CREATE TABLE other(x)")
    add = [Query("INSERT INTO kept(number) VALUES (?)", (number,)) for number in range(30)]
    add[7] = Script("INSERT INTO kept(number) VALUES (7)")
    add[8] = Query("CREATE INDEX i ON other(x)")
    add[15] = Query("INSERT OR ROLLBACK INTO kept(number) VALUES (3)")
    add[20] = Transaction([add[20]])
    add[25] = Query("INSERT INTO kept(number) VALUES (3)")
    answers = writer.run(*add)
    assert [position for position, kind in enumerate(errors(answers)) if kind] == [15, 25]
    assert writer.rows("SELECT number FROM kept ORDER BY id") == [n for n in range(30) if n not in (8, 15, 25)]


MIXED = [
    Query("INSERT INTO kept(number) VALUES (100)"),
    Query("INSERT INTO kept(number, what) VALUES (?, ?), (?, ?)", (101, "a", 102, "b")),
    Query("INSERT OR IGNORE INTO kept(number) VALUES (100)"),
    Query("UPDATE kept SET what = 'x'"),
    Query("UPDATE kept SET what = 'x' WHERE number = 5000"),
    Query("SELECT count(*) AS many FROM kept"),
    Query("DELETE FROM kept WHERE number = 101"),
    Query("INSERT INTO kept(number) VALUES (103) RETURNING number AS n, what"),
    Query("UPDATE kept SET what = 'y' WHERE number > 5000 RETURNING number"),
    Query("WITH more(n) AS (VALUES (104), (105)) INSERT INTO kept(number) SELECT n FROM more"),
    Query("REPLACE INTO kept(number,what)VALUES(100,'again')"),
    Query("INSERT INTO seen VALUES (7)"),
    Query("INSERT INTO kept(number) VALUES (:n)", {"n": 106}),
    Query("INSERT INTO kept(number) VALUES (?) -- and that was that", (107,)),
    Query("INSERT INTO kept(number) VALUES (?)", many=[(108,), (109,)]),
    Query("INSERT INTO kept(number) VALUES (?) RETURNING number", many=[(110,), (111,)]),
    Query("INSERT INTO kept(number) VALUES (112), (113) RETURNING number", max_rows=1),
    Transaction([Query("INSERT INTO kept(number) VALUES (114)"), Query("SELECT max(number) FROM kept")]),
    Query("INSERT INTO kept(number) VALUES (114)"),
    Query("INSERT INTO nowhere VALUES (1)"),
    Query("EXPLAIN QUERY PLAN DELETE FROM kept"),
    Query("DELETE FROM kept WHERE number >= 100"),
]


def test_each_result_is_the_same_as_alone(make):
    setup = (
        "CREATE TABLE kept(number INTEGER PRIMARY KEY, what TEXT DEFAULT ''); CREATE VIEW seen AS SELECT number FROM "
        "kept; CREATE TRIGGER see INSTEAD OF INSERT ON seen BEGIN INSERT INTO kept(number) VALUES (1000 + new.number); "
        "END; CREATE TRIGGER gone AFTER DELETE ON kept BEGIN INSERT OR IGNORE INTO kept VALUES (77, 'trigger'); END"
    )
    alone, together = make(setup), make(setup)
    for _ in ("for the first time", "known", "known to give no rows"):
        one_by_one = [alone.run(request)[0] for request in MIXED]
        at_once = together.run(*MIXED)
        assert errors(at_once) == errors(one_by_one)
        for request, is_, was in zip(MIXED, at_once, one_by_one, strict=True):
            assert is_.value == was.value, request
            if isinstance(was.value, Result):
                assert (is_.value.rowcount, is_.value.lastrowid) == (was.value.rowcount, was.value.lastrowid), request
                assert (is_.value.columns, is_.value.truncated) == (was.value.columns, was.value.truncated), request
        assert together.rows() == alone.rows()


def test_columns_follow_a_schema_that_has_just_changed(writer):
    back = "INSERT INTO kept(number) VALUES (?) RETURNING *"
    before = writer.run(Query(back, (1,)), Query(back, (2,)))
    assert [answer.value.columns for answer in before] == [("number", "what")] * 2
    writer.other.execute("ALTER TABLE kept ADD COLUMN more DEFAULT 5")
    after = writer.run(Query(back, (3,)), Query(back, (4,)))
    assert [answer.value.columns for answer in after] == [("number", "what", "more")] * 2
    assert [answer.value.rows for answer in after] == [[(3, "", 5)], [(4, "", 5)]]


@pytest.mark.parametrize("company", [1, 2], ids=["alone", "in a group"])
def test_columns_are_right_after_an_error_in_a_transaction(make, company):
    writer = make("CREATE TABLE kept(number, what); INSERT INTO kept VALUES (1, 'good')")
    look = Transaction([Query("SELECT *, abs(number) FROM kept")])
    assert writer.run(look)[0].value[0].columns == ("number", "what", "abs(number)")
    writer.other.execute("ALTER TABLE kept ADD COLUMN more DEFAULT 5; UPDATE kept SET number = -9223372036854775808")
    assert errors(writer.run(*[look] * company)) == ["SQLError"] * company
    writer.other.execute("UPDATE kept SET number = 1")
    result = writer.run(look)[0].value[0]
    assert (result.columns, result.rows) == (("number", "what", "more", "abs(number)"), [(1, "good", 5, 1)])


# --- requests that run alone --------------------------------------------------------------

ALONE = [
    Query("VACUUM"),
    Query("REINDEX"),
    Query("ANALYZE"),
    Query("CREATE TABLE more(x)"),
    Query("DROP TABLE other"),
    Query("ALTER TABLE other ADD COLUMN y"),
    Query("CREATE TEMP TABLE notes(x)"),
    Query("ATTACH ':memory:' AS extra"),
    Query("PRAGMA user_version = 5"),
    Query("PRAGMA user_version"),
    Query("PRAGMA optimize"),
    Query("PRAGMA synchronous = OFF"),
    Query("PRAGMA temp_store = MEMORY"),
    Query("PRAGMA query_only = ON"),
    Query("PRAGMA defer_foreign_keys = ON"),
    Query("PRAGMA foreign_keys = OFF"),
    Query("PRAGMA journal_mode = WAL"),
    Query("PRAGMA wal_autocheckpoint = 500"),
    Query("BEGIN"),
    Query("BEGIN IMMEDIATE"),
    Query("COMMIT"),
    Query("ROLLBACK"),
    Query("SAVEPOINT here"),
    Query("RELEASE querycrew"),
    Query("ROLLBACK TO querycrew"),
    Script("INSERT INTO kept(number) VALUES (90); CREATE TABLE more(x); INSERT INTO kept(number) VALUES (91)"),
    Script("INSERT INTO kept(number) VALUES (92); SELECT missing"),
    Script("BEGIN; INSERT INTO kept(number) VALUES (93)"),
    Call(lambda connection: connection.execute("INSERT INTO kept(number) VALUES (94) RETURNING number").get),
    Call(lambda connection: connection.execute("SELECT missing")),
    Transaction([insert(95), Query("CREATE TABLE more(x)"), insert(96)]),
    Transaction([insert(97), Query("SAVEPOINT s"), insert(98), Query("ROLLBACK TO s"), insert(99)]),
    Transaction([insert(95), Query("COMMIT"), insert(96)]),
    Transaction([insert(95), Query("ROLLBACK")]),
    Transaction([insert(95), Query("PRAGMA defer_foreign_keys = ON"), insert(95)]),
    Transaction([Query("SELECT count(*) FROM kept")], readonly=True),
]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("request_", ALONE, ids=lambda request: request.sql[:40])
def test_a_request_that_cannot_share_and_its_neighbours_are_answered_as_alone(make, request_, place):
    setup = "CREATE TABLE kept(number INTEGER PRIMARY KEY); CREATE TABLE other(x)"
    alone, together = make(setup), make(setup)
    for _ in ("for the first time", "and again"):
        for writer in (alone, together):
            writer.other.execute("DELETE FROM kept; DROP TABLE IF EXISTS more; CREATE TABLE IF NOT EXISTS other(x)")
        requests = [insert(1), insert(2)]
        requests.insert(place, request_)
        one_by_one = [alone.run(request)[0] for request in requests]
        at_once = together.run(*requests)
        assert errors(at_once) == errors(one_by_one)
        assert [answer.value for answer in at_once] == [answer.value for answer in one_by_one]
        for is_, was in zip(at_once, one_by_one, strict=True):
            assert str(is_.error) == str(was.error)
        assert together.rows() == alone.rows()
        assert together.rows("SELECT name FROM sqlite_schema") == alone.rows("SELECT name FROM sqlite_schema")
    assert errors(together.run(insert(3), insert(4))) == [None, None]
    assert together.rows("PRAGMA user_version") == alone.rows("PRAGMA user_version")
    assert not together.connection.connection.in_transaction


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize(
    "request_",
    [
        Script("INSERT INTO kept(number) SELECT 100 + count(*) FROM kept"),
        Call(lambda connection: connection.execute("INSERT INTO kept(number) SELECT 100 + count(*) FROM kept").get),
        Query("CREATE TABLE more AS SELECT 100 + count(*) AS number FROM kept"),
    ],
    ids=["script", "call", "create"],
)
def test_a_request_that_cannot_share_runs_in_its_turn(make, request_, place):
    writer = make()
    requests = [*map(insert, range(4))]
    requests.insert(place, request_)
    assert errors(writer.run(*requests)) == [None] * 5
    table = "more" if isinstance(request_, Query) else "kept"
    assert writer.rows(f"SELECT max(number) FROM {table}") == [100 + place]


def test_several_requests_that_cannot_share_succeed_in_a_row(writer):
    requests = [Query("VACUUM"), Script("SELECT 1"), Query("REINDEX"), insert(1), Query("ANALYZE"), insert(2)]
    for _ in range(2):
        assert errors(writer.run(*requests)) == [None] * 6
        assert errors(writer.run(Query("DELETE FROM kept"), Query("VACUUM"))) == [None] * 2


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("pragma", ["foreign_keys = OFF", "defer_foreign_keys = ON", "query_only = ON"])
def test_a_setting_of_one_statement_is_gone_for_the_others(make, pragma, place):
    writer = make("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE kept(number REFERENCES p)")
    bad, good = Query("INSERT INTO kept VALUES (-5)"), Query("INSERT INTO p VALUES (NULL)")
    requests = [bad, good]
    requests.insert(place, Query(f"PRAGMA {pragma}"))
    for _ in range(2):
        kinds = errors(writer.run(*requests))
        assert [kinds[requests.index(bad)], kinds[requests.index(good)]] == ["ConstraintError", None]
        assert errors(writer.run(bad, good)) == ["ConstraintError", None]
    assert writer.rows() == []


# --- errors -------------------------------------------------------------------------------


def test_an_error_of_a_statement_undoes_that_statement_alone(writer):
    many = Query("INSERT INTO kept(number) VALUES (10), (11), (2)")
    requests = [insert(1), insert(2), many, insert(1), Query("SELECT missing FROM nowhere"), insert(3), insert(1)]
    with counted(writer.path) as written:
        answers = writer.run(*requests)
    kinds = [None, None, "ConstraintError", "ConstraintError", "SQLError", None, "ConstraintError"]
    assert errors(answers) == kinds
    assert written.count == 1
    assert writer.rows() == [1, 2, 3]
    again = [answer.error for answer in writer.run(*requests)]
    assert len({id(error) for error in again}) == len(again)


def test_a_group_in_which_all_fail_commits_nothing(writer):
    writer.run(insert(1))
    with counted(writer.path) as written:
        assert errors(writer.run(insert(1), insert(1), insert(1))) == ["ConstraintError"] * 3
    assert written.count == 0


ROLLBACKS = {
    "conflict": "INSERT OR ROLLBACK INTO kept(number) VALUES (1)",
    "trigger": "INSERT INTO kept(number) VALUES (-1)",
    "full": "INSERT INTO kept(number, what) VALUES (500, zeroblob(4000000))",
    "deferred": "INSERT INTO child VALUES (77)",
}
ROLLS_BACK = (
    "CREATE TABLE kept(number INTEGER PRIMARY KEY, what); CREATE TABLE child(parent REFERENCES kept DEFERRABLE "
    "INITIALLY DEFERRED); CREATE TRIGGER no BEFORE INSERT ON kept WHEN new.number < 0 BEGIN "
    "SELECT RAISE(ROLLBACK, 'less than nothing'); END; INSERT INTO kept(number) VALUES (1)"
)


@pytest.mark.parametrize("place", [0, 1, 2, 5])
@pytest.mark.parametrize("how", ROLLBACKS)
def test_a_statement_that_undoes_the_transaction_is_rejected_alone(make, how, place):
    writer = make(ROLLS_BACK, pragmas={"max_page_count": 100})
    for first in (10, 20):
        requests = [insert(first + more) for more in range(5)]
        requests.insert(place, Query(ROLLBACKS[how]))
        kinds = errors(writer.run(*requests))
        assert kinds.pop(place) in ("ConstraintError", "FullError")
        assert kinds == [None] * 5
    assert writer.rows() == [1, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24]
    assert writer.rows("SELECT * FROM child") == []


@pytest.mark.parametrize("wrap", ["transaction", "many"])
@pytest.mark.parametrize("how", ROLLBACKS)
def test_requests_of_many_statements_that_undo_the_transaction_are_rejected_alone(make, how, wrap):
    writer = make(ROLLS_BACK, pragmas={"max_page_count": 100})
    bad = (
        Transaction([insert(50), Query(ROLLBACKS[how]), insert(51)])
        if wrap == "transaction"
        else Query(ROLLBACKS[how], many=[(), ()])
    )
    kinds = errors(writer.run(insert(2), bad, insert(3), bad, insert(4)))
    assert [kinds[1] is None, kinds[3] is None, *kinds[::2]] == [False, False, None, None, None]
    assert writer.rows() == [1, 2, 3, 4]
    assert writer.rows("SELECT * FROM child") == []


def test_two_requests_that_undo_the_transaction_do_not_hurt_the_others(make):
    writer = make(ROLLS_BACK, pragmas={"max_page_count": 100})
    bad = [Query(ROLLBACKS[how]) for how in ROLLBACKS]
    requests = [insert(2), *bad, insert(3), *bad, insert(4), bad[0]]
    answers = writer.run(*requests)
    assert [answer.error is None for answer in answers] == [request not in bad for request in requests]
    assert writer.rows() == [1, 2, 3, 4]


def test_a_broken_deferred_constraint_is_checked_in_the_order_of_asking(make):
    writer = make(
        "CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1); "
        "CREATE TABLE child(parent REFERENCES kept DEFERRABLE INITIALLY DEFERRED)"
    )
    requests = [insert(2), Query("INSERT INTO child VALUES (1)"), Query("DELETE FROM kept WHERE number = 1"), insert(3)]
    assert errors(writer.run(*requests)) == [None, None, "ConstraintError", None], "the delete must fail"
    assert writer.rows() == [1, 2, 3]
    assert writer.rows("SELECT parent FROM child") == [1]


def test_a_deferred_constraint_that_holds_in_the_end_shares(make):
    writer = make(
        "CREATE TABLE kept(number INTEGER PRIMARY KEY); "
        "CREATE TABLE child(parent REFERENCES kept DEFERRABLE INITIALLY DEFERRED)"
    )
    both = Transaction([Query("INSERT INTO child VALUES (7)"), insert(7)])
    with counted(writer.path) as written:
        assert errors(writer.run(insert(1), both, insert(2))) == [None] * 3
    assert written.count == 1


def test_a_request_of_many_statements_is_undone_as_a_whole(writer):
    many = Query("INSERT INTO kept(number) VALUES (?)", many=[(10,), (11,), (1,)])
    requests = [insert(1), many, Transaction([insert(12), insert(13), insert(1)]), insert(2)]
    with counted(writer.path) as written:
        answers = writer.run(*requests)
    assert errors(answers) == [None, "ConstraintError", "ConstraintError", None]
    assert any("statement 3 of 3" in note for note in answers[2].error.__notes__)
    assert written.count == 1
    assert writer.rows() == [1, 2]


# --- errors of Python ---------------------------------------------------------------------


class Special(Exception):
    """An error that cannot be copied, since its arguments are not the arguments of its class."""

    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")


class Functions:
    """Registers the functions of a test on each connection."""

    def __init__(self, **functions):
        self.functions = functions
        self.connection = None

    def __call__(self, connection):
        self.connection = connection
        for name, function in self.functions.items():
            connection.create_scalar_function(name, function)


@pytest.mark.parametrize("error", [ValueError("no"), Special("no", 3), apsw.SQLError("no"), InterruptedError("no")])
def test_an_error_of_a_function_goes_to_its_caller_alone(make, error):
    writer = make(on_connect=Functions(boom=fail(error)))
    third = "SELECT 101 AS n UNION ALL SELECT 102 UNION ALL SELECT 103"
    requests = [
        insert(1),
        Query(f"INSERT INTO kept(number) SELECT n + boom(n - 100) FROM ({third})"),
        insert(2),
        Transaction([insert(50), Query("SELECT boom()")]),
        insert(3),
    ]
    answers = writer.run(*requests)
    kind = type(error).__name__
    assert errors(answers) == [None, kind, None, kind, None]
    assert writer.rows() == [1, 2, 3]


@pytest.mark.parametrize("then", [ValueError("no"), apsw.SQLError("no")], ids=["python", "driver"])
def test_the_writes_of_a_function_are_undone_with_its_statement(make, then):
    def write_and_fail():
        functions.connection.execute("INSERT INTO kept(number) VALUES (70)")
        raise then

    functions = Functions(write_and_fail=write_and_fail)
    alone, together = make(on_connect=functions), make(on_connect=functions)
    bad = Query("UPDATE kept SET what = write_and_fail()")
    functions.connection = alone.connection.connection
    one_by_one = errors([alone.run(request)[0] for request in (insert(1), bad, insert(2))])
    functions.connection = together.connection.connection
    assert errors(together.run(insert(1), bad, insert(2))) == one_by_one
    assert together.rows() == alone.rows() == [1, 2]


def test_rows_that_cannot_be_decoded_undo_a_statement_that_is_alone(writer):
    [answer] = writer.run(Query("INSERT INTO kept(number) VALUES (50) RETURNING CAST(x'ff' AS TEXT)"))
    assert isinstance(answer.error, UnicodeDecodeError)
    assert writer.rows() == [], "a failed statement has changed the table"


def test_rows_that_cannot_be_decoded_undo_a_statement_of_a_group(writer):
    bad = Query("INSERT INTO kept(number) VALUES (50) RETURNING CAST(x'ff' AS TEXT)")
    change = Query("UPDATE kept SET number = number + 100 RETURNING CAST(x'ff' AS TEXT)")
    for first in (1, 5):
        answers = writer.run(
            insert(first), bad, insert(first + 1), change, Transaction([insert(60), bad]), insert(first + 2)
        )
        undecodable = "UnicodeDecodeError"
        assert errors(answers) == [None, undecodable, None, undecodable, undecodable, None]
    assert writer.rows() == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("params", [(), (1, 2), (object(),)])
def test_parameters_that_do_not_fit_are_an_error_of_their_caller(writer, params):
    bad = Query("INSERT INTO kept(number) VALUES (?)", params)
    for first in (1, 3):  # the second time the text is known
        kinds = errors(writer.run(insert(first), bad, insert(first + 1)))
        assert [kinds[0], kinds[1] is None, kinds[2]] == [None, False, None]
    assert writer.rows() == [1, 2, 3, 4]


def test_a_useless_connection_is_reported_as_lost(make):
    writer = make(on_connect=Functions(corrupt=fail(apsw.CorruptError("the disk is malformed"))))
    with pytest.raises(ConnectionLost) as caught:
        writer.run(insert(1), Query("UPDATE kept SET what = corrupt()"), insert(2))
    assert isinstance(caught.value.__cause__, apsw.CorruptError)


def test_a_lost_connection_costs_the_jobs_of_its_transaction_and_gives_back_the_others(make):
    """The jobs that are given back were undone, and wait to begin again."""
    calls = []

    def corrupt():
        calls.append(True)
        if len(calls) == 2:
            raise apsw.CorruptError("the disk is malformed")
        return 1

    writer = make(ROLLS_BACK, on_connect=Functions(corrupt=corrupt))
    batch = Together(
        writer.connection,
        [
            Query("INSERT INTO kept(number) SELECT 5 WHERE corrupt()"),
            insert(6),
            Query(ROLLBACKS["deferred"]),
            insert(7),
        ],
    )
    with pytest.raises(ConnectionLost):
        writer.connection.run(batch)
    assert len(calls) == 2
    assert [task.position for task in batch.running] == [0]
    assert [task.position for task in batch.left] == [1, 2, 3]
    assert not batch.answered


# --- interrupts ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", range(5))
@pytest.mark.parametrize("moment", range(5))
def test_a_job_that_is_interrupted_between_statements_is_undone_alone(writer, moment, target):
    writer.before = lambda position: writer.interrupt(target) if position == moment else None
    answers = writer.run(*map(insert, range(5)))
    kinds = errors(answers)
    assert kinds.pop(target) in INTERRUPTED
    assert kinds == [None] * 4
    assert writer.rows() == [number for number in range(5) if number != target]
    writer.before = lambda position: None
    assert errors(writer.run(insert(10), insert(11))) == [None, None], "the interrupt of one job hit another job"


@pytest.mark.parametrize("target", range(5))
def test_a_job_that_is_interrupted_in_its_statement_is_undone_alone(make, target):
    def strike():
        if not struck:
            struck.append(True)
            writer.interrupt(target)
        return 1

    struck = []
    writer = make(on_connect=Functions(strike=strike))
    many = "WITH RECURSIVE n(i) AS (VALUES(10) UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n"
    requests = [*map(insert, range(5))]
    requests[2] = Query(f"INSERT INTO kept(number) {many} WHERE strike()")
    answers = writer.run(*requests)
    assert struck
    kinds = errors(answers)
    assert kinds.pop(target) in INTERRUPTED
    assert kinds == [None] * 4
    expected = {0, 1, 3, 4, *range(10, 1001)} - ({*range(10, 1001)} if target == 2 else {target})
    assert {*writer.rows()} == expected


@pytest.mark.parametrize("bad", ["INSERT INTO kept(number) VALUES (0)", "UPDATE kept SET what = boom()"])
def test_the_error_of_an_interrupted_job_names_no_other_statement(make, bad):
    def strike():
        writer.interrupt(1)
        return 1

    writer = make(on_connect=Functions(strike=strike, boom=fail(Special("secret", "here"))))
    secret = Transaction([Query("UPDATE kept SET what = 'secret' WHERE strike()"), Query(f"{bad} -- secret")])
    answers = writer.run(insert(0), insert(1), secret, insert(3))
    assert errors(answers)[0] is errors(answers)[3] is None
    assert errors(answers)[2] in ("ConstraintError", "Special")
    assert errors(answers)[1] in INTERRUPTED, "the error must be its own interrupt, not the error of another job"
    assert "secret" not in str(answers[1].error)
    assert not any("secret" in note for note in getattr(answers[1].error, "__notes__", ()))
    assert writer.rows() == [0, 3]


def test_a_failed_job_that_is_interrupted_afterwards_has_failed(make):
    def strike():
        writer.interrupt(1)
        return 1

    writer = make(on_connect=Functions(strike=strike))
    requests = [insert(1), insert(1), Query("INSERT INTO kept(number) SELECT 2 WHERE strike()"), insert(3)]
    kinds = errors(writer.run(*requests))
    assert kinds.pop(1) in ("ConstraintError", *INTERRUPTED)
    assert kinds == [None] * 3
    assert writer.rows() == [1, 2, 3]


def test_an_interrupt_of_a_job_that_is_over_has_no_effect(writer):
    for number in range(10):
        writer.run(insert(number), insert(100 + number))
        writer.interrupt(0)
        writer.interrupt(1)
    assert len(writer.rows()) == 20


def test_an_interrupt_for_no_job_ends_the_running_statement_and_no_other(make):
    def strike():
        writer.connection.interrupt()
        return 1

    writer = make(on_connect=Functions(strike=strike))
    kinds = errors(writer.run(insert(1), Query("INSERT INTO kept(number) SELECT 2 WHERE strike()")))
    assert kinds[0] is None
    assert kinds[1] in INTERRUPTED
    assert writer.rows() == [1]
    assert errors(writer.run(insert(3), insert(4))) == [None, None]


@pytest.mark.parametrize("target", [1, 2])
def test_an_interrupt_of_a_job_that_must_begin_again_does_not_hit_the_running_job(make, target):
    """The interrupted job has begun, was undone, and waits behind the running job."""

    def strike():
        begun.append(True)
        if len(begun) == 2:
            writer.interrupt(target)
        return 1

    begun = []
    writer = make(ROLLS_BACK, on_connect=Functions(strike=strike))
    requests = [
        Query("INSERT INTO kept(number) SELECT 5 WHERE strike()"),
        insert(6),
        insert(7),
        Query(ROLLBACKS["deferred"]),
        insert(8),
    ]
    kinds = errors(writer.run(*requests))
    assert len(begun) >= 2
    assert kinds.pop(target) in INTERRUPTED
    assert kinds == [None, None, "ConstraintError", None], "only the interrupted job may fail"
    assert writer.rows() == [1, *(number for number in (5, 6, 7, 8) if number != 5 + target)]


def test_an_interrupted_job_that_waits_for_its_own_transaction_does_not_run(writer):
    """The job has begun, and the writer has found that it cannot share a commit."""
    writer.after = lambda position: None if position else writer.interrupt(1)
    kinds = errors(writer.run(insert(1), Query("CREATE TABLE more(x)"), insert(2)))
    assert kinds.pop(1) in INTERRUPTED
    assert kinds == [None, None]
    assert writer.rows("SELECT name FROM sqlite_schema WHERE name = 'more'") == []


def test_a_long_statement_does_not_begin_again_for_each_interrupt_beside_it(make):
    """Otherwise the statement would never end while jobs with short deadlines wait beside it."""

    def strike():
        begun.append(True)
        for task in [task for task in writer.batch.running if task.position != 10 and not task.is_unwanted][:1]:
            writer.interrupt(task.position)  # as if its deadline had passed
        return 1

    begun = []
    writer = make(on_connect=Functions(strike=strike))
    requests = [*map(insert, range(1, 20))]
    requests.insert(10, Query("INSERT INTO kept(number) SELECT 0 WHERE strike()"))
    kinds = errors(writer.run(*requests))
    assert kinds[10] is None
    assert len(begun) <= 3
    assert kinds.count(None) > 15


class Deaf:
    """A connection whose commit is interrupted before its first step.

    A call from another thread may do so."""

    def __init__(self, connection, strike):
        self._connection, self._strike = connection, strike

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, *more):
        if sql == "COMMIT" and self._strike is not None:
            strike, self._strike = self._strike, None
            strike()
            raise apsw.InterruptError("interrupted")
        return self._connection.execute(sql, *more)


def test_an_interrupt_that_hits_the_commit_fails_one_caller(writer):
    transactions = writer.connection._transactions
    transactions.connection = deaf = Deaf(transactions.connection, lambda: writer.interrupt(1))
    kinds = errors(writer.run(insert(1), insert(2), insert(3)))
    transactions.connection = deaf._connection
    assert kinds.pop(1) in INTERRUPTED
    assert kinds == [None, None], "a job without an interrupt was not done"
    assert writer.rows() == [1, 3]


# --- the lock and the commit --------------------------------------------------------------


@pytest.fixture
def waits(monkeypatch):
    """Functions that a connection calls as it begins to wait for a lock, one at each wait."""
    steps = deque()
    on_busy = LockWait.on_busy

    def step(wait, attempts):
        if steps:
            steps.popleft()()
        return on_busy(wait, attempts)

    monkeypatch.setattr(LockWait, "on_busy", step)
    return steps


def test_each_caller_gets_the_error_of_a_lock_that_stays_taken(make):
    writer = make(busy_timeout=0)
    writer.other.execute("BEGIN IMMEDIATE")
    answers = writer.run(insert(1), insert(2), insert(3))
    assert errors(answers) == ["BusyError"] * 3
    assert len({id(answer.error) for answer in answers}) == 3
    assert all(any("waited" in note for note in answer.error.__notes__) for answer in answers)
    writer.other.execute("ROLLBACK")
    assert errors(writer.run(insert(1), insert(2), insert(3))) == [None] * 3


def test_all_jobs_of_a_group_wait_for_the_lock_together(make, waits):
    """Otherwise the last job would wait once for each job before it."""
    writer = make(busy_timeout=0)
    writer.other.execute("BEGIN IMMEDIATE")
    tries = []
    waits += [lambda: tries.append(True)] * 100
    assert errors(writer.run(*map(insert, range(100)))) == ["BusyError"] * 100
    assert len(tries) == 1
    writer.other.execute("ROLLBACK")


@pytest.mark.parametrize("target", [0, 1])
def test_an_interrupt_while_all_wait_for_the_lock_fails_one_caller(make, waits, target):
    writer = make(busy_timeout=PATIENCE)
    writer.other.execute("BEGIN IMMEDIATE")
    waits += [lambda: writer.interrupt(target), lambda: writer.other.execute("ROLLBACK")]
    kinds = errors(writer.run(insert(0), insert(1), insert(2)))
    assert kinds.pop(target) in (*INTERRUPTED, "BusyError")
    assert kinds == [None, None]
    assert writer.rows() == [number for number in range(3) if number != target]


@pytest.mark.parametrize("target", [0, 2])
def test_an_interrupt_while_the_commit_waits_for_a_reader_fails_one_caller(make, waits, target):
    writer = make(busy_timeout=PATIENCE, journal_mode="delete")
    reader = writer.other.execute("SELECT * FROM sqlite_schema")  # it has read its first row, and holds the lock
    waits += [lambda: writer.interrupt(target), reader.close]
    kinds = errors(writer.run(insert(0), insert(1), insert(2)))
    reader.close()
    assert kinds.pop(target) in (*INTERRUPTED, "BusyError")
    assert kinds == [None, None], "a job without an interrupt was not done"
    assert writer.rows() == [number for number in range(3) if number != target]


def test_each_caller_gets_the_error_of_a_commit_that_waits_in_vain(make):
    writer = make(busy_timeout=0, journal_mode="delete")
    reader = writer.other.execute("SELECT * FROM sqlite_schema")
    answers = writer.run(insert(0), insert(1), insert(2))
    reader.close()
    assert errors(answers) == ["BusyError"] * 3
    assert len({id(answer.error) for answer in answers}) == 3
    assert writer.rows() == []
    assert errors(writer.run(insert(0), insert(1))) == [None, None]


@pytest.mark.parametrize("error", [None, ValueError("no"), Special("no", 3)], ids=["refused", "raised", "special"])
def test_a_commit_that_fails_rejects_all_of_its_callers(make, error):
    refusing = []

    def hook():
        if refusing and error is not None:
            raise error
        return bool(refusing)

    writer = make(on_connect=lambda connection: connection.set_commit_hook(hook))
    assert errors(writer.run(insert(1), insert(2))) == [None, None]
    refusing.append(True)
    answers = writer.run(insert(3), insert(1), insert(4))
    kind = "ConstraintError" if error is None else type(error).__name__
    refusing.clear()
    assert errors(answers) == [kind, "ConstraintError", kind]
    assert len({id(answer.error) for answer in answers}) == 3
    assert errors(writer.run(insert(5), insert(6))) == [None, None]
    assert writer.rows() == [1, 2, 5, 6]


@pytest.mark.parametrize("target", [None, 1])
def test_an_error_after_the_commit_does_not_repeat_the_writes(make, target):
    """SQLite calls the hook of the log once the commit is durable."""

    def hook(connection, name, pages):
        if failing:
            if target is not None:
                writer.interrupt(target)
            failing.clear()
            raise ValueError("too late")
        return apsw.SQLITE_OK

    failing = []
    writer = make("CREATE TABLE kept(number)", on_connect=lambda connection: connection.set_wal_hook(hook))
    assert errors(writer.run(insert(1), insert(2))) == [None, None]
    failing.append(True)
    writer.run(insert(3), insert(4), insert(5))
    assert not failing
    assert writer.rows() == [1, 2, 3, 4, 5]


def test_closing_raises_nothing_even_if_a_hook_raises(make):
    failing = []

    def hook():
        if failing:
            raise ValueError("no")
        return False

    writer = make(on_connect=lambda connection: connection.set_commit_hook(hook))
    writer.other.execute("CREATE INDEX i ON kept(what)")
    assert errors(writer.run(*map(insert, range(20)))) == [None] * 20
    failing.append(True)
    try:
        writer.connection.close()
    finally:
        failing.clear()
    with pytest.raises(apsw.ConnectionClosedError):
        writer.connection.connection.execute("SELECT 1")


@pytest.mark.parametrize("how", [*ROLLBACKS, "commit", "busy"])
def test_no_error_names_the_statement_of_another_caller(make, how):
    refusing = []
    writer = make(
        ROLLS_BACK,
        pragmas={"max_page_count": 100},
        busy_timeout=0,
        on_connect=lambda connection: connection.set_commit_hook(lambda: bool(refusing)),
    )
    requests = [
        Query("INSERT INTO kept(number) VALUES (10) /* caller 0 */"),
        Transaction([Query("INSERT INTO kept(number) VALUES (1) -- caller 1")]),
        Query("INSERT INTO kept(number) VALUES (11) /* caller 2 */"),
        Transaction([Query("SELECT 1"), Query(f"{ROLLBACKS.get(how, 'SELECT missing')} -- caller 3")]),
        Transaction([Query("INSERT INTO kept(number) VALUES (12) -- caller 4")]),
    ]
    if how == "commit":
        refusing.append(True)
    if how == "busy":
        writer.other.execute("BEGIN IMMEDIATE")
    for caller, answer in enumerate(writer.run(*requests)):
        said = " ".join([str(answer.error), *getattr(answer.error, "__notes__", ())])
        assert [other for other in range(5) if f"caller {other}" in said] in ([], [caller])
        assert "querycrew" not in said or said.count("statement ") <= 1
    if how == "busy":
        writer.other.execute("ROLLBACK")


# --- any jobs, interrupted at any moment --------------------------------------------------

KINDS = {
    "ok": lambda n: Query("INSERT INTO kept(number) SELECT ? WHERE tick()", (n,)),
    "returning": lambda n: Query("INSERT INTO kept(number) SELECT ? WHERE tick() RETURNING number", (n,)),
    "known": insert,
    "own text": lambda n: Query(f"INSERT INTO kept(number) SELECT {n} WHERE tick()"),
    "many": lambda n: Query("INSERT INTO kept(number) SELECT ? WHERE tick()", many=[(n,), (n + 1,)]),
    "transaction": lambda n: Transaction([insert(n), Query("SELECT tick()"), insert(n + 1)]),
    "script": lambda n: Script(f"BEGIN; INSERT INTO kept(number) VALUES ({n}); SELECT tick(); COMMIT"),
    "call": lambda n: Call(lambda connection: connection.execute("INSERT INTO kept(number) VALUES (?)", (n,)).get),
    "pragma": lambda n: Query(f"PRAGMA cache_size = {n}"),
    "ddl": lambda n: Query(f"CREATE TABLE t{n} AS SELECT tick()"),
}
MINUS_ONE = "INTO kept(number) SELECT i FROM (SELECT ? AS i UNION ALL SELECT -1)"  # the table holds -1 already
BAD_KINDS = {
    "twice": lambda n: Query(f"INSERT {MINUS_ONE} WHERE tick()", (n,)),
    "rolls back": lambda n: Query(f"INSERT OR ROLLBACK {MINUS_ONE}", (n,)),
    "deferred": lambda n: Query("INSERT INTO child SELECT ? WHERE tick()", (-n - 10,)),
    "raises": lambda n: Query("INSERT INTO kept(number) SELECT ? + boom()", (n,)),
    "many twice": lambda n: Query("INSERT INTO kept(number) VALUES (?)", many=[(n,), (-1,)]),
    "bad transaction": lambda n: Transaction([insert(n), Query("SELECT tick()"), insert(-1)]),
    "broken transaction": lambda n: Transaction([insert(n), Query(f"INSERT OR ROLLBACK {MINUS_ONE}", (n + 1,))]),
    "bad script": lambda n: Script(f"BEGIN; INSERT INTO kept(number) VALUES ({n}); SELECT missing"),
    "left open": lambda n: Script(f"BEGIN; INSERT INTO kept(number) VALUES ({n})"),
}
WRITES = {"ok": 1, "returning": 1, "known": 1, "own text": 1, "many": 2, "transaction": 2, "script": 1, "call": 1}


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.lists(st.sampled_from([*KINDS, *KINDS, *BAD_KINDS]), min_size=1, max_size=12),
    strikes=st.dictionaries(st.integers(0, 30), st.integers(0, 11), max_size=4),
)
def test_the_table_holds_exactly_the_acknowledged_writes(any_writer, kinds, strikes):
    writer, strike = any_writer
    writer.other.execute("DELETE FROM kept WHERE number >= 0; DELETE FROM child")
    numbers = [10 * (position + 1) for position in range(len(kinds))]
    requests = [{**KINDS, **BAD_KINDS}[kind](number) for kind, number in zip(kinds, numbers, strict=True)]
    for name in writer.rows("SELECT name FROM sqlite_schema WHERE name GLOB 't[0-9]*'"):
        writer.other.execute(f"DROP TABLE {name}")
    moments = iter(range(1000))
    interrupted = set()

    def maybe(*_):
        target = strikes.get(next(moments, 1000))
        if target is not None and target < len(kinds):
            interrupted.add(target)
            writer.interrupt(target)

    strike.append(maybe)
    writer.before = maybe
    answers = writer.run(*requests)
    strike.clear()
    expected = []
    for position, (kind, number, answer) in enumerate(zip(kinds, numbers, answers, strict=True)):
        if answer.error is None:
            assert kind in KINDS, kind
            expected += range(number, number + WRITES.get(kind, 0))
        else:
            assert kind in BAD_KINDS or position in interrupted, (kind, answer.error)
            assert type(answer.error).__name__ not in ("_RunsAlone", "AttributeError")
    assert writer.rows("SELECT number FROM kept WHERE number >= 0 ORDER BY number") == expected
    assert writer.rows("SELECT * FROM child") == []
    assert not writer.connection.connection.in_transaction


@pytest.fixture(scope="module")
def any_writer(tmp_path_factory):
    strike = []

    def tick():
        for function in strike:
            function()
        return 1

    def functions(connection):
        connection.create_scalar_function("tick", tick)
        connection.create_scalar_function("boom", fail(ValueError("no")))

    setup = (
        "CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (-1); "
        "CREATE TABLE child(parent REFERENCES kept DEFERRABLE INITIALLY DEFERRED)"
    )
    path = tmp_path_factory.mktemp("any") / "any.db"
    writer = Writer(path, setup, on_connect=functions, synchronous="off")
    yield writer, strike
    writer.close()
