"""Parameters in a buffer.

Every way to ask stores the content that the buffer had when the request was made.
"""

import array
import ctypes
import decimal
import enum
import mmap
import pickle

import pytest

from supervisor import ChildProcess, Query, Script, Stream
from tests.support.health import same_workers
from tests.support.ways_to_ask import WAYS, Name


class Number(ctypes.c_double):
    """A number in a buffer of its own, like the numbers of NumPy."""

    def item(self):
        return self.value


class WholeNumber(ctypes.c_int64):
    def item(self):
        return self.value


class Truth(ctypes.c_bool):
    def item(self):
        return self.value


class Wide(ctypes.c_longdouble):
    """A number that no Python number can hold."""

    def item(self):
        return self


class Array(ctypes.c_double * 2):
    """An array, which is not a number though it has an `item` method."""

    def item(self):
        return self[0]


class Blob(bytes):
    """Bytes of a class of their own."""


class Level(enum.IntEnum):
    HIGH = 3


def mapped(content):
    memory = mmap.mmap(-1, len(content))
    memory[:] = content
    return memory


def released():
    view = memoryview(b"gone")
    view.release()
    return view


STORED = {
    "bytearray": (lambda: bytearray(b"ab\0"), b"ab\0"),
    "memoryview": (lambda: memoryview(b"a view of some")[2:6], b"view"),
    "a view with gaps": (lambda: memoryview(b"a1b2c3")[::2], b"abc"),
    "a view of numbers": (lambda: memoryview(array.array("H", [1, 2])), array.array("H", [1, 2]).tobytes()),
    "a view of a table": (lambda: memoryview(b"abcd").cast("B", (2, 2)), b"abcd"),
    "array": (lambda: array.array("d", [1.5]), array.array("d", [1.5]).tobytes()),
    "mmap": (lambda: mapped(b"mapped"), b"mapped"),
    "a float in a buffer": (lambda: Number(1.5), 1.5),
    "an int in a buffer": (lambda: WholeNumber(-7), -7),
    "a bool in a buffer": (lambda: Truth(True), 1),
    "bytes of a class of their own": (lambda: Blob(b"ab"), b"ab"),
    "a member of an enum": (lambda: Level.HIGH, 3),
    "a text of an enum": (lambda: Name.FIRST, "a"),
    "an int of a class that no child can import": (lambda: type("Local", (int,), {})(4), 4),
    "a text of a class that no child can import": (lambda: type("Local", (str,), {})("b"), "b"),
}
KINDS = {int: "integer", float: "real", bytes: "blob", str: "text"}

REFUSED = {
    "a number of C": lambda: ctypes.c_int(5),
    "an array of C": lambda: ctypes.create_string_buffer(b"ab"),
    "an array with an item": lambda: Array(1.0, 2.0),
    "a number too wide for Python": lambda: Wide(1.5),
    "a buffer for pickle": lambda: pickle.PickleBuffer(b"ab"),
    "a view that was released": released,
}


# --- by every way to ask ------------------------------------------------------------------


@pytest.fixture(params=["threads", "children", "memory"])
def db(request, start, path):
    crew = start({"threads": path, "children": ChildProcess(path), "memory": None}[request.param], size=1)
    crew.ask(Script("CREATE TABLE kept(value)"))
    return crew


@pytest.mark.parametrize("way", WAYS)
def test_a_value_in_a_buffer_is_stored_as_its_value(db, way):
    for name, (make, stored) in STORED.items():
        value, kind = WAYS[way](db, make())
        assert (type(value), value, kind) == (type(stored), stored, KINDS[type(stored)]), name


def test_numbers_of_numpy_are_stored_as_numbers_and_their_arrays_are_refused(db):
    numpy = pytest.importorskip("numpy")
    numbers = [
        (numpy.int64(1), 1),
        (numpy.int8(-1), -1),
        (numpy.uint64(5), 5),
        (numpy.bool_(True), 1),
        (numpy.float16(0.5), 0.5),
        (numpy.float32(0.1), float(numpy.float32(0.1))),
        (numpy.float64(0.1), 0.1),
        (numpy.str_("a"), "a"),
        (numpy.bytes_(b"ab"), b"ab"),
    ]
    day = numpy.datetime64("2020-01-01")
    others = [numpy.array([1]), numpy.array(5), numpy.array(day), day, day - day, numpy.longdouble(0.1)]
    others += [numpy.complex64(1j), numpy.ma.masked, numpy.void(b"ab"), numpy.array([None])]
    for way, ask in WAYS.items():
        for given, stored in numbers:
            value, kind = ask(db, given)
            assert (type(value), value, kind) == (type(stored), stored, KINDS[type(stored)]), (way, type(given))
        for given in others:
            with pytest.raises(TypeError, match=f"parameter (1|a) is of the class {type(given).__name__}"):
                ask(db, given)


# --- refused in the caller ----------------------------------------------------------------


@pytest.mark.parametrize("value", REFUSED)
@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda value: Query("SELECT ?, ?", (1, value)), r"Query\(params\): parameter 2"),
        (lambda value: Query("SELECT ?, ?", [1, value]), r"Query\(params\): parameter 2"),
        (lambda value: Query("SELECT :size", {"size": value}), r"Query\(params\): parameter size"),
        (lambda value: Query("SELECT ?", many=[(1,), (value,)]), r"Query\(many\), run 2: parameter 1"),
        (lambda value: Query("SELECT :a", many=[{"a": value}]), r"Query\(many\), run 1: parameter a"),
        (lambda value: Stream("SELECT ?", (value,)), r"Stream\(params\): parameter 1"),
    ],
)
def test_another_buffer_is_refused_with_its_place_and_its_class(make, place, value):
    given = REFUSED[value]()
    with pytest.raises(TypeError, match=rf"^{place} is of the class {type(given).__name__}, "):
        make(given)


def test_the_refusal_of_a_buffer_names_the_remedy_and_not_the_value():
    with pytest.raises(TypeError) as caught:
        Query("SELECT ?", (ctypes.create_string_buffer(b"hunter2"),))
    assert "bytes(value)" in str(caught.value)
    assert "value.tolist()" in str(caught.value)
    assert "hunter2" not in repr(caught.value)


def test_the_refusal_of_parameters_for_many_runs_names_the_run():
    with pytest.raises(TypeError, match=r"^Query\(many\), run 2 must be a sequence of values"):
        Query("SELECT ?", many=[(1,), 2])
    with pytest.raises(TypeError, match=r"^Query\(many\), run 2 by name needs str names, not int"):
        Query("SELECT ?", many=[(1,), {1: 2}])


@pytest.mark.parametrize("value", [decimal.Decimal("1.5"), 1j, {1}, object()], ids=lambda value: type(value).__name__)
def test_a_value_without_a_buffer_is_left_to_the_driver(value):
    assert Query("SELECT ?", (value,)).params[0] is value


# --- stored as at the time of asking ------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda value: Query("SELECT ?", (value,)).params[0],
        lambda value: Query("SELECT ?", [value]).params[0],
        lambda value: Query("SELECT :a", {"a": value}).params["a"],
        lambda value: Query("SELECT ?", many=[(value,)]).many[0][0],
        lambda value: Query("SELECT ?", many=[[value]]).many[0][0],
        lambda value: Query("SELECT :a", many=[{"a": value}]).many[0]["a"],
        lambda value: Stream("SELECT ?", (value,)).params[0],
        lambda value: Stream("SELECT :a", {"a": value}).params["a"],
    ],
)
@pytest.mark.parametrize("wrap", [bytearray, mapped, memoryview, lambda content: memoryview(bytearray(content))])
def test_a_request_keeps_the_bytes_with_which_it_was_made(make, wrap):
    value = wrap(b"before")
    kept = make(value)
    if not isinstance(value, memoryview) or not value.readonly:
        value[:] = b"after!"
    assert (type(kept), kept) == (bytes, b"before")


def test_a_buffer_that_changes_while_its_query_waits_is_stored_as_it_was(db):
    value = bytearray(b"before")
    with same_workers(db), db.transaction() as tx:  # the query waits for it
        reply = db.ask(Query("INSERT INTO kept VALUES (?)", (value,)), block=False)
        value[:] = b"after!"
        tx.rollback()
    reply.get(timeout=10)
    assert db.ask(Query("SELECT value FROM kept")).scalar() == b"before"
