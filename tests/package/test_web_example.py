"""The web app of the examples, with a real HTTP client and a real socket."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from examples import in_a_web_app as web  # noqa: E402  # it needs packages that may be missing
from supervisor import (  # noqa: E402
    DatabaseUnavailable,
    Overloaded,
    Query,
    QueryTimeout,
    RestartPolicy,
    Script,
    Supervisor,
    SupervisorStopped,
    WorkerDied,
)
from tests.conftest import eventually  # noqa: E402
from tests.support.common import PATIENCE, environment  # noqa: E402
from tests.support.fakes import FakeDatabase, Gate  # noqa: E402

ROOT = Path(__file__).parents[2]
ENDLESS = "/count?upto=1e15"  # its deadline is beyond the patience of all clients here
assert web.LONGEST > 2 * PATIENCE


@contextmanager
def served(app):
    """Serve `app` on a free port, and yield the URL."""
    # An installed uvloop is not used: it keeps two descriptors for the rest of the process.
    config = uvicorn.Config(app, loop="asyncio", lifespan="on", ws="none", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    # A client that comes before the server is ready waits in the backlog. The protocol is named
    # since asyncio sets TCP_NODELAY only then. Without it each answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1000)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(2 * PATIENCE)
        assert not thread.is_alive(), "the server hangs"


@pytest.fixture
def serve():
    """Serve the app with a crew of the test, and return a client of the app."""
    with ExitStack() as stack:

        def serve_app(database, **options):
            url = stack.enter_context(served(web.make_app(partial(Supervisor.start, database, **options))))
            return stack.enter_context(httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False))

        yield serve_app


@pytest.fixture
def library(path):
    """Set up the file that the app serves."""
    with Supervisor.start(path) as db:
        db.ask(Script(web.SETUP))
    return path


def crew(client):
    return client.get("/status").json()


@asynccontextmanager
async def leaving(client, **wanted):
    """Send an endless query, wait for the state `wanted`, and disconnect after the block."""
    async with httpx.AsyncClient(base_url=client.base_url, timeout=PATIENCE, trust_env=False) as http:
        endless = asyncio.create_task(http.get(ENDLESS))
        async with asyncio.timeout(PATIENCE):
            while not wanted.items() <= (await http.get("/status")).json().items():
                assert not endless.done()
        yield http
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless


# --- answers ------------------------------------------------------------------------------


def test_a_request_is_answered_with_the_rows(serve, library):
    answer = serve(library).get("/books", params={"longer_than": 450})
    assert answer.status_code == 200
    assert answer.json() == [{"title": "Emma", "pages": 474}, {"title": "Ulysses", "pages": 730}]


def test_a_request_past_its_deadline_gets_504_and_the_only_worker_is_free(serve, library):
    client = serve(library, size=1)
    answer = client.get(ENDLESS, params={"upto": 1e15, "within": 0.05})
    assert (answer.status_code, answer.json()) == (504, {"error": "QueryTimeout", "executed": False})
    assert client.get("/count?upto=10").json() == {"counted": 10}
    assert crew(client)["timed_out"] == 1


@pytest.mark.parametrize("within", ["soon", "nan", "-1", "inf", web.LONGEST + 1])
def test_an_invalid_deadline_is_refused(serve, library, within):
    answer = serve(library).get("/count", params={"within": within})
    assert answer.status_code == 400
    assert "within must be a number from 0 to" in answer.text


def test_hundreds_of_requests_are_answered_while_a_slow_query_runs(serve, library):
    client = serve(library, size=2)

    async def main():
        async with leaving(client, running=1) as http:
            answers = await asyncio.gather(*[http.get("/books") for _ in range(300)])
            return answers, (await http.get("/status")).json()["running"]

    answers, running = asyncio.run(main())
    assert [answer.status_code for answer in answers] == [200] * 300
    assert running == 1, "the slow query ended too early, so the test proves nothing"


# --- clients that go away -----------------------------------------------------------------


def test_a_client_that_hangs_up_cancels_its_running_query_and_the_only_worker_is_free(serve, library):
    client = serve(library, size=1)

    async def main():
        async with leaving(client, running=1):
            pass

    asyncio.run(main())
    assert client.get("/count?upto=10").json() == {"counted": 10}
    assert eventually(lambda: crew(client)["cancelled"] == 1)
    assert crew(client)["running"] == 0


def test_a_client_that_hangs_up_cancels_its_queued_query_and_no_other(serve, library):
    client = serve(library, size=1)

    async def main():
        async with leaving(client, running=1, queued=0) as http:
            async with leaving(client, running=1, queued=1):
                pass
            async with asyncio.timeout(PATIENCE):
                while (await http.get("/status")).json()["cancelled"] < 1:
                    pass
            return (await http.get("/status")).json()

    status = asyncio.run(main())
    assert (status["running"], status["queued"], status["cancelled"]) == (1, 0, 1)
    assert eventually(lambda: crew(client)["cancelled"] == 2)


def test_a_socket_that_is_closed_in_the_middle_cancels_its_query(serve, library):
    client = serve(library, size=1)
    for turn in range(20):
        with socket.create_connection((client.base_url.host, client.base_url.port), PATIENCE) as plain:
            plain.sendall(f"GET {ENDLESS} HTTP/1.1\r\nHost: example\r\n\r\n".encode())
            assert eventually(lambda: crew(client)["running"] == 1)
        assert client.get("/count?upto=10").json() == {"counted": 10}, turn
        assert eventually(lambda: crew(client)["cancelled"] == turn + 1)  # noqa: B023  # called here and now


def test_a_client_that_stays_keeps_its_query(serve, library):
    client = serve(library, size=1)
    answers = [client.get("/count?upto=300000").json() for _ in range(10)]
    assert answers == [{"counted": 300_000}] * 10
    assert crew(client)["cancelled"] == 0


def test_neither_starting_nor_stopping_the_crew_blocks_the_event_loop():
    opening, slow = Gate(), Gate()
    database = FakeDatabase({"slow": slow}, opening=deque([opening]))

    async def main():
        app = web.make_app(partial(Supervisor.start, database, size=1))
        async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
            state = await stack.enter_async_context(app.router.lifespan_context(app))
            reply = state["db"].ask(Query("slow"), block=False)
            opening.opened.set()  # runs while the only worker opens the database
            ending = asyncio.create_task(stack.pop_all().aclose())
            assert await asyncio.to_thread(slow.entered.wait, PATIENCE)
            assert not ending.done()
            slow.opened.set()  # runs while the crew waits for the last query
            await ending
        return reply.get(timeout=0).scalar()

    assert asyncio.run(main()) == "passed"


# --- refusals -----------------------------------------------------------------------------


def test_a_full_queue_asks_the_client_to_come_back_later(serve, library):
    client = serve(library, size=1, max_queue=1)

    async def main():
        async with leaving(client, running=1, queued=0), leaving(client, running=1, queued=1) as http:
            return await http.get("/books")

    answer = asyncio.run(main())
    assert (answer.status_code, answer.json()) == (503, {"error": "QueueFull", "executed": False})
    assert int(answer.headers["Retry-After"]) > 0


def test_a_database_that_is_away_is_a_503_until_it_is_back(serve, tmp_path):
    folder = tmp_path / "not mounted yet"
    client = serve(folder / "app.db", restart=RestartPolicy(backoff_initial=0.01, backoff_max=0.01))
    answer = client.get("/count?upto=10")
    assert (answer.status_code, answer.json()) == (503, {"error": "DatabaseUnavailable", "executed": False})
    assert int(answer.headers["Retry-After"]) > 0
    folder.mkdir()
    assert eventually(lambda: client.get("/count?upto=10").status_code == 200)


@pytest.mark.parametrize(
    ("error", "code", "later"),
    [
        (Overloaded("asked too much"), 503, True),
        (DatabaseUnavailable("away"), 503, True),
        (SupervisorStopped("stopping"), 503, True),
        (QueryTimeout("too slow"), 504, False),
        (WorkerDied("of a bug"), 500, False),
        (ValueError("secret"), 500, False),
    ],
)
def test_every_error_has_its_status_code_and_shows_no_secrets(serve, error, code, later):
    client = serve(FakeDatabase({web.BOOKS: error}))
    answer = client.get("/books")
    assert answer.status_code == code
    assert ("Retry-After" in answer.headers) is later
    assert "secret" not in answer.text
    assert web.BOOKS not in answer.text


# --- the program --------------------------------------------------------------------------


@pytest.mark.usefixtures("plain_signals")
def test_the_program_serves_until_ctrl_c_and_ends_well():
    command = [sys.executable, ROOT / "examples" / "in_a_web_app.py", "0"]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment())
    with program:
        try:
            lines = iter(program.stderr.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://[\d.]+:\d+", line)))
            with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
                assert len(client.get("/books").json()) == 3
            os.kill(program.pid, signal.SIGINT)
            told = program.stderr.read()
            assert program.wait(PATIENCE) == 0, told
            assert "Traceback" not in told
        finally:
            program.kill()
