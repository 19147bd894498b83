"""In a web app: each request is a query with a deadline; a client that leaves cancels its query.

pip install '.[web]' && python examples/in_a_web_app.py     # serves on port 8000

curl -i 'localhost:8000/books?longer_than=450'
curl -i 'localhost:8000/count?upto=1000000000&within=0.5'   # 504: interrupted; the worker is free
curl -i 'localhost:8000/count?upto=1000000000'              # press Ctrl-C: the query is cancelled
curl -i 'localhost:8000/status'                             # counts it as cancelled

Rows are tuples, and a tuple in JSON has no names: `rows.dicts()` makes objects of the rows. An
endpoint of FastAPI returns `rows.dicts()`, too. It may return `rows` itself if its
`response_model` is `list[Book]`, with a pydantic model `Book`.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from supervisor import (
    DatabaseUnavailable,
    Query,
    QueryCancelled,
    QuerycrewError,
    QueryTimeout,
    QueueFull,
    Reply,
    Script,
    Status,
    Supervisor,
    SupervisorRef,
    SupervisorStopped,
)

T = TypeVar("T")

SETUP = """
CREATE TABLE books (title TEXT, pages INTEGER);
INSERT INTO books VALUES ('Emma', 474), ('Dracula', 418), ('Ulysses', 730);
"""
BOOKS = "SELECT title, pages FROM books WHERE pages > ? ORDER BY title"
COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"
LONGEST = 30.0  # seconds that a request may take; a client may not ask for more

# Any other error, such as an error of a statement, is a fault of the app: the answer is 500, and
# the log of the app has a traceback.
STATUS_CODES = {
    QueryTimeout: 504,
    QueueFull: 503,  # also Overloaded, its subclass
    DatabaseUnavailable: 503,
    SupervisorStopped: 503,
    QueryCancelled: 499,  # no client reads this: it has gone
}


# --- helpers for any app ------------------------------------------------------------------


async def unless_gone(request: Request, reply: Reply[T]) -> T:
    """Await `reply`, and cancel its job as soon as the client has gone.

    Starlette does not end an endpoint when its client leaves. Read the request's body before. Then
    the server sends only one more message: the client is gone.

    Raises:
        QueryCancelled: the client has gone.
    """
    watching = asyncio.create_task(cancel_when_gone(request, reply))
    try:
        return await reply
    finally:
        watching.cancel()


async def cancel_when_gone(request: Request, reply: Reply[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    reply.cancel()


async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Name the error, and say whether the statement took effect: is it safe to ask again?"""
    assert isinstance(error, QuerycrewError)
    code = next(code for kind, code in STATUS_CODES.items() if isinstance(error, kind))
    headers = {"Retry-After": "1"} if code == 503 else {}
    return JSONResponse({"error": type(error).__name__, "executed": error.executed}, code, headers)


# --- the app ------------------------------------------------------------------------------


async def books(request: Request) -> JSONResponse:
    query = Query(BOOKS, (number(request, "longer_than", 0),), timeout=LONGEST)
    rows = await unless_gone(request, request.state.db.ask(query, block=False))
    return JSONResponse(rows.dicts())


async def count(request: Request) -> JSONResponse:
    query = Query(COUNT, (number(request, "upto", 1000),), timeout=number(request, "within", LONGEST, LONGEST))
    rows = await unless_gone(request, request.state.db.ask(query, block=False))
    return JSONResponse({"counted": rows.scalar()})


async def status(request: Request) -> JSONResponse:
    crew = request.state.db.ask(Status())  # is answered at once, so it may run on the event loop
    shown = ("state", "queued", "running", "answered", "timed_out", "cancelled")
    return JSONResponse({name: getattr(crew, name) for name in shown})


def number(request: Request, name: str, default: float, most: float = 1e15) -> float:
    try:
        value = float(request.query_params.get(name, default))
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise HTTPException(400, f"{name} must be a number from 0 to {most:g}")
    return value


def make_app(start: Callable[[], SupervisorRef]) -> Starlette:
    """Return the app. The server calls `start` for the crew when it starts the app."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        db = start()  # returns at once, while the workers open the database
        try:
            yield {"db": db}
        finally:
            await db.stop(block=False)  # the end of a `with` block would stop the event loop

    routes = [Route("/books", books), Route("/count", count), Route("/status", status)]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=dict.fromkeys(STATUS_CODES, refuse))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "app.db"
        with Supervisor.start(path) as db:
            db.ask(Script(SETUP))
        app = make_app(partial(Supervisor.start, path, size=4, max_queue=100))
        uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)


if __name__ == "__main__":
    main()
