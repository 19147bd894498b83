"""How a request travels: the parent packs it with `item_of`, and the child loads it.

A plain query travels by its parts, by `marshal`, which takes half the time of `pickle`. Every other
request is pickled. A request that cannot be packed travels as the reason.
"""

import marshal
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any, Final, TypeAlias

from actors.databases.child.frames import JOBS, frame
from actors.databases.child.pickling import culprit_of, described
from actors.databases.steps import Execute, Step
from actors.values.parameters import PLAIN, Parameters
from actors.values.record import store
from actors.values.requests import Call, Query, Request, Transaction, unbound

__all__ = ["Item", "item_of", "jobs_frame", "load_request"]

Item: TypeAlias = "tuple[str, Parameters, int | None] | bytes | str"
"""A request as it travels: the parts of a plain query (a tuple), another request pickled (bytes),
or the reason why the request cannot be sent (a string). The job gets the reason as its error."""

# `marshal` carries values of the classes in PLAIN unchanged. It would turn any other object that
# has a buffer into bytes, and so hide an error of the driver. SQLite binds values of these
# subclasses as the plain ones.
_MAKERS: Final[tuple[tuple[Any, Callable[[Any], object]], ...]] = (
    (bool, bool),
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, bytes),
)


def item_of(request: Request | Step) -> tuple[Item, int]:
    """Return a request as it travels, and its approximate size in bytes. Never raises."""
    if type(request) is Query and request.many is None and not request.arrow and type(request.params) is tuple:
        # Most requests are of this kind: in one loop, without a call for each value.
        sql, params, size = request.sql, request.params, 0
        for value in params:
            kind = type(value)
            if kind is str or kind is bytes:
                size += len(value)
            elif kind not in PLAIN:
                break
        else:
            if type(sql) is str:
                return (sql, params, request.max_rows), size + len(sql)
    item = _item_of(request)
    return item, _size_of(item)


def _item_of(request: Request | Step) -> Item:
    try:
        if type(request) is Query and request.many is None and not request.arrow:
            params = _plainer(request.params)
            if params is not None:
                sql = request.sql
                return sql if type(sql) is str else _plain(sql), params, request.max_rows
        inner = request.request if isinstance(request, Execute) else request
        reason = _not_importable(inner.function) if isinstance(inner, Call) else None
        if reason is None:
            return _pickle(request) if isinstance(inner, Call) else _pickle_plainly(request)
        return _wrong_function(inner, reason)
    except BaseException as error:  # noqa: BLE001  # whatever the class of a parameter does there
        return _unsendable(request.request if isinstance(request, Execute) else request, type(error).__name__)


def _size_of(item: Item) -> int:
    if type(item) is not tuple:
        return len(item)
    sql, params, _ = item
    values = params.values() if isinstance(params, dict) else params
    return len(sql) + sum(len(value) for value in values if type(value) is str or type(value) is bytes)


def jobs_frame(ticket: int, items: list[Item], kind: int = JOBS) -> bytes:
    """Return the frame of a step, or of jobs: the first job has `ticket`, the others follow."""
    return frame(kind, ticket, marshal.dumps(items), len(items))


def _pickle(value: object) -> bytes:
    import pickle  # few requests need it

    return pickle.dumps(value)


def _pickle_plainly(request: Request | Step) -> bytes:
    """Pickle a request. Its parameters become plain values where SQLite binds them as such."""
    buffer = BytesIO()
    _plain_pickler()(buffer).dump(request)
    return buffer.getvalue()


@cache
def _plain_pickler() -> Any:
    import pickle

    class Plainly(pickle.Pickler):
        """Makes plain values of subclasses, which the child may be unable to import."""

        def reducer_override(self, value: Any) -> Any:
            for kind, make in _MAKERS:
                if isinstance(value, kind):
                    return kind, (make(value),)
            return NotImplemented

    return Plainly


def _unsendable(request: Request | Step, error: str) -> str:
    """Return why a request cannot be pickled; without the error's text, which may show a value."""
    if isinstance(request, Call):
        try:
            _pickle(request.function)
        except BaseException:  # noqa: BLE001  # a class of the user's
            return _wrong_function(request, f"it cannot be pickled ({error})")
    queries = request.queries if isinstance(request, Transaction) else (request,)
    culprit = culprit_of([getattr(query, name, None) for query in queries for name in ("params", "many", "args")])
    return f"a parameter cannot be sent to a child process: {described(culprit)} ({error})"


def _wrong_function(request: Request | Step, reason: str) -> str:
    return (
        f"{request} cannot be sent to a child process: {reason}. The function must stand at the top level of a module "
        "that the child can import; an object that it is bound to must be made of values"
    )


def _not_importable(function: Callable[..., Any]) -> str | None:
    """Return why a child process cannot import a function by its name, as far as the name tells."""
    function = unbound(function)
    name = str(getattr(function, "__qualname__", type(function).__qualname__))
    if name.endswith("<lambda>"):
        return "it is a lambda"
    if "<locals>" in name:
        return "it is defined inside another function"
    if getattr(function, "__module__", None) == "__main__":
        return "it is defined in __main__, which a child does not run"
    return None


def _plain(value: Any) -> Any:
    """Return the plain value that SQLite binds for `value`; any other value unchanged."""
    for kind, make in _MAKERS:
        if isinstance(value, kind):
            return make(value)
    return value


def _plainer(params: Any) -> Any:
    """Return parameters as plain values, or `None` where one of them is no such value."""
    if isinstance(params, dict):
        named = {name: _plain(value) for name, value in params.items()}
        return named if PLAIN.issuperset(map(type, named.values())) else None
    values = tuple(_plain(value) for value in params)
    return values if PLAIN.issuperset(map(type, values)) else None


def load_request(item: Item) -> Request | Step:
    """Return the request of an item.

    Raises:
        TypeError: it could not be sent.
        Exception: a parameter cannot be put together here.
    """
    if type(item) is tuple:
        sql, params, max_rows = item
        query: Query = object.__new__(Query)  # it was checked where it was made
        store(query, "sql", sql)
        store(query, "params", params)
        if max_rows is not None:
            store(query, "max_rows", max_rows)
        return query
    if type(item) is str:
        raise TypeError(item)
    import pickle

    try:
        request: Request | Step = pickle.loads(item)  # type: ignore[arg-type]  # from our own parent
    except Exception as error:
        error.add_note("querycrew: a child process imports the classes of its parameters, and does not run __main__")
        raise
    return request
