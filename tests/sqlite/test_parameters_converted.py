"""Values of classes that SQLite does not have.

They are refused by the name of their class, or stored as the program converts them.
"""

import datetime as dt
import decimal
import pathlib
import uuid

import apsw
import pytest

from supervisor import Call, ChildProcess, Query, Script, SQLite
from tests.support.converting import store, teach
from tests.support.health import same_workers
from tests.support.ways_to_ask import WAYS

VALUES = {
    dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC): "2024-02-29T12:30:00+00:00",
    dt.date(2024, 2, 29): "2024-02-29",
    dt.time(12, 30): "12:30:00",
    decimal.Decimal("1.50"): "1.50",
    uuid.UUID(int=5): "00000000-0000-0000-0000-000000000005",
    pathlib.PurePosixPath("/tmp/a b"): "/tmp/a b",
}


@pytest.fixture(params=["threads", "children", "memory"])
def start_crew(request, start, path):
    """Start a crew of each kind. Each new connection of it calls a function first."""

    def start_one(on_connect):
        database = SQLite(path if request.param != "memory" else ":memory:", on_connect=on_connect)
        crew = start(ChildProcess(database) if request.param == "children" else database, size=1)
        crew.ask(Script("CREATE TABLE kept(value)"))
        return crew

    return start_one


def test_a_class_that_sqlite_does_not_have_is_refused_by_its_name_in_every_request(start_crew):
    db = start_crew(None)
    with same_workers(db):
        for way, ask in WAYS.items():
            for value in VALUES:
                with pytest.raises(TypeError, match=rf"argument #1: type \S*\b{type(value).__name__}\n"):
                    ask(db, value)
                assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 0, way


needs_conversion = pytest.mark.skipif(
    not hasattr(apsw.Connection, "convert_binding"), reason="this APSW cannot convert parameters"
)


@needs_conversion
def test_a_connection_that_converts_parameters_does_so_in_every_request(start_crew):
    db = start_crew(teach)
    for way, ask in WAYS.items():
        for value, stored in VALUES.items():
            assert tuple(ask(db, value)) == (stored, "text"), (way, type(value))


@needs_conversion
def test_a_class_that_the_program_refuses_is_refused_in_the_words_of_the_program(start_crew):
    db = start_crew(teach)
    with same_workers(db):
        for ask in WAYS.values():
            with pytest.raises(TypeError, match=r"^parameter 1 is of the class complex, which is not stored\n"):
                ask(db, 1j)


@needs_conversion
def test_a_connection_that_is_opened_again_converts_as_before(start_crew):
    db = start_crew(teach)
    value = decimal.Decimal("1.50")
    db.ask(Query("CREATE TEMP TABLE gone(it)"))
    assert db.ask(Query("SELECT ?", (value,))).scalar() == "1.50"
    db.ask(Call(store, value))
    db.ask(Query("INSERT INTO kept VALUES (?)", (value,)))
    assert db.ask(Query("SELECT value FROM kept")).column(0) == ["1.50", "1.50"]
