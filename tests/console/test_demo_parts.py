"""The parts of the demo: its data, its searches, and the gauges that show their progress."""

import json
from functools import partial

import pytest

from actors.console import characters
from actors.console.gauges import COMMITS, Gauges, connect_to
from actors.console.pace import Stopwatch
from actors.console.searches import DOOMED, MAKE_SLICES, SEARCHES, SLICES
from supervisor import ChildProcess, Query, Script, SQLite, Transaction


def test_the_rows_agree_with_pythons_unicode_data():
    half = (0xBD, "½", "VULGAR FRACTION ONE HALF", "No", "ON", "<fraction> 0031 2044 0032", 0.5, 0, 0, "A")
    assert characters.row(0xBD) == half


def test_each_named_character_is_loaded_once_and_the_animals_come_first():
    codes = characters.named_codes()
    assert len(codes) == len(set(codes)) > 138_000
    assert codes[: len(characters.ANIMALS)] == list(characters.ANIMALS)
    assert codes.index(0xBD) < codes.index(0x4E00)


@pytest.mark.parametrize("kind", ["thread", "child"])
def test_the_gauges_count_each_commit_and_show_each_slot(start, tmp_path, kind):
    database = SQLite(tmp_path / "app.db", on_connect=partial(connect_to, tmp_path / "gauges"))
    with Gauges(tmp_path / "gauges") as gauges:
        db = start(ChildProcess(database) if kind == "child" else database, size=1)
        db.ask(Query("CREATE TABLE t(a)"))
        before = gauges.read(COMMITS)
        for number in range(5):
            db.ask(Query("INSERT INTO t VALUES (?)", (number,)))
        assert gauges.read(COMMITS) - before == 5
        db.ask(Transaction([Query("INSERT INTO t VALUES (?)", (number,)) for number in range(5)]))
        assert gauges.read(COMMITS) - before == 6
        assert db.ask(Query("SELECT gauge(7, 42)")).scalar() == 1
        assert (gauges.read(7), gauges.read(6)) == (42, 0)
        assert gauges.read(COMMITS) - before == 6


def test_the_log_is_written_back_although_the_gauges_have_its_hook(start, tmp_path):
    database = SQLite(tmp_path / "app.db", on_connect=partial(connect_to, tmp_path / "gauges"))
    with Gauges(tmp_path / "gauges"):
        db = start(database, size=1)
        db.ask(Query("CREATE TABLE t(a)"))
        for _ in range(4):
            db.ask(Query("INSERT INTO t VALUES (zeroblob(6000000))"))
        # Each commit fills the log, so the next commit writes it back.
        assert (tmp_path / "app.db").stat().st_size > 12_000_000


def test_every_search_answers_one_text_and_reports_its_progress(start, tmp_path):
    database = SQLite(tmp_path / "app.db", on_connect=partial(connect_to, tmp_path / "gauges"))
    with Gauges(tmp_path / "gauges") as gauges:
        db = start(database, size=1)
        db.ask(Query(characters.CREATE))
        rows = [characters.row(code) for code in characters.named_codes()[:12_000]]
        db.ask(Query(characters.INSERT, (json.dumps(rows),)))
        db.ask(Script(MAKE_SLICES))
        assert db.ask(Query("SELECT count(*) FROM slices")).scalar() == SLICES
        for search in SEARCHES:
            answer = db.ask(Query(search.sql)).one()
            assert [type(value) for value in answer] == [str], search.title
            assert gauges.read(search.slot) == SLICES, search.title


def test_no_index_makes_an_end_of_the_endless_search(start, tmp_path):
    database = SQLite(tmp_path / "app.db", on_connect=partial(connect_to, tmp_path / "gauges"))
    with Gauges(tmp_path / "gauges"):
        db = start(database, size=1)
        db.ask(Query(characters.CREATE))
        db.ask(Script(MAKE_SLICES))
        plan = db.ask(Query(f"EXPLAIN QUERY PLAN {DOOMED.sql}")).column("detail")
    assert [line.split()[:2] for line in plan] == [
        ["SCAN", "slices"],
        ["SEARCH", "it"],
        ["SCAN", "other"],
        ["SCAN", "both"],
    ]


def test_every_search_has_a_gauge_and_a_title_of_its_own():
    searches = (DOOMED, *SEARCHES)
    assert len({search.slot for search in searches} | {COMMITS}) == len(searches) + 1
    assert len({search.title for search in searches}) == len(searches)
    assert len({str(Query(search.sql)) for search in searches}) == len(searches)


def test_a_stopwatch_is_stopped_by_the_reply(start):
    reply = start().ask(Query("SELECT 1"), block=False)
    watch = Stopwatch(reply)
    reply.get()
    assert watch.stopped_at is not None
    assert watch.seconds == watch.seconds >= 0
