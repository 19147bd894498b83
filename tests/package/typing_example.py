"""Checked by mypy only: the types that a user's own type checker infers."""

from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Never, assert_type

import pykka

from supervisor import (
    Backup,
    Begin,
    Call,
    Cancel,
    ChildProcess,
    Close,
    Connection,
    CrewStatus,
    Database,
    Durations,
    Execute,
    Executes,
    OfferedCrew,
    Query,
    Reply,
    RestartPolicy,
    Result,
    Row,
    RowStream,
    Script,
    Session,
    SQLite,
    Status,
    Stream,
    Subscribe,
    Supervisor,
    SupervisorRef,
    Transaction,
    WorkerStatus,
    offered_crews,
)


def start() -> None:
    assert_type(Supervisor.start(), SupervisorRef)
    assert_type(
        Supervisor.start("app.db", size=8, max_queue=10_000, restart=RestartPolicy(), name="app"), SupervisorRef
    )
    assert_type(Supervisor.start(SQLite("app.db", journal_mode="wal")), SupervisorRef)
    assert_type(Supervisor.start(ChildProcess("app.db", memory_limit=1 << 30), size=2), SupervisorRef)
    with Supervisor.start() as db:
        assert_type(db, SupervisorRef)
    Supervisor.start(5)  # type: ignore[arg-type]


def ask(db: SupervisorRef) -> None:
    assert_type(db.ask(Query("SELECT 1")), Result)
    assert_type(db.ask(Query("SELECT :a", {"a": 1}), timeout=1.0), Result)
    assert_type(db.ask(Script("BEGIN; COMMIT"), block=True), Result)
    assert_type(db.ask(Query("SELECT 1"), block=False), Reply[Result])
    assert_type(db.ask(Script("BEGIN; COMMIT"), block=False), Reply[Result])
    assert_type(db.ask(Transaction([Query("SELECT 1")])), list[Result])
    assert_type(db.ask(Transaction([Query("SELECT 1")]), block=False), Reply[list[Result]])
    assert_type(db.ask(Call(count, "t")), int)
    assert_type(db.ask(Call(count, "t"), block=False), Reply[int])
    assert_type(db.ask(Backup("copy.db")), Result)
    assert_type(db.ask(Stream("SELECT 1")), RowStream)
    assert_type(db.ask(Stream("SELECT 1"), block=False), Reply[RowStream])
    for row in db.ask(Stream("SELECT 1")):
        assert_type(row, Row)
    with db.transaction(timeout=1.0, wait=0.5) as tx:
        assert_type(tx, Session)
    assert_type(db.ask(Status()), CrewStatus)
    assert_type(db.ask(Status(), block=False), Reply[CrewStatus])
    assert_type(db.ask(Cancel(7)), bool)
    assert_type(db.ask(Cancel(7), block=False), Reply[bool])
    assert_type(db.cancel(7), bool)
    db.tell(Cancel(7))
    assert_type(offered_crews(), list[OfferedCrew])
    db.ask("SELECT 1")  # type: ignore[call-overload]
    db.tell(Status())  # type: ignore[arg-type]


def ask_with_a_flag(db: SupervisorRef, flag: bool, ref: pykka.ActorRef[Any]) -> None:
    assert_type(db.ask(Query("SELECT 1"), block=flag), Result | Reply[Result])
    assert_type(db.ask(Script("SELECT 1"), block=flag), Result | Reply[Result])
    assert_type(db.ask(Backup("copy.db"), block=flag), Result | Reply[Result])
    assert_type(db.ask(Transaction([Query("SELECT 1")]), block=flag), list[Result] | Reply[list[Result]])
    assert_type(db.ask(Call(count, "t"), block=flag), int | Reply[int])
    assert_type(db.ask(Stream("SELECT 1"), block=flag), RowStream | Reply[RowStream])
    assert_type(db.ask(Status(), block=flag), CrewStatus | Reply[CrewStatus])
    assert_type(db.ask(Subscribe(ref), block=flag), Reply[None] | None)
    assert_type(db.stop(block=flag), bool | Reply[bool])


def catch(db: SupervisorRef) -> None:
    try:
        db.ask(Query("SELECT 1"))
    except db.errors as error:
        assert_type(error, BaseException)


def ask_in_a_transaction(tx: Session, block: bool) -> None:
    assert_type(tx.begin(), None)
    assert_type(tx.begin(block=False), Reply[None])
    assert_type(tx.ask(Query("SELECT 1")), Result)
    assert_type(tx.ask(Query("SELECT 1"), block=False), Reply[Result])
    assert_type(tx.ask(Query("SELECT 1"), block=block), Result | Reply[Result])
    assert_type(tx.ask(Script("SELECT 1")), Result)
    assert_type(tx.ask(Call(count, "t")), int)
    assert_type(tx.ask(Call(count, "t"), block=False), Reply[int])
    assert_type(tx.ask(Call(count, "t"), block=block), int | Reply[int])
    assert_type(tx.ask(Stream("SELECT 1")), RowStream)
    assert_type(tx.ask(Stream("SELECT 1"), block=False), Reply[RowStream])
    assert_type(tx.ask(Stream("SELECT 1"), block=block), RowStream | Reply[RowStream])
    tx.ask(Transaction([Query("SELECT 1")]))  # type: ignore[call-overload]
    assert_type(tx.commit(), None)
    assert_type(tx.commit(block=False), Reply[None])
    assert_type(tx.rollback(block=block), Reply[None] | None)


class OwnConnection(Connection):
    """A connection with the methods that every author writes."""

    def execute(self, request: Any) -> Any:
        match request:
            case Query() | Execute(Query()) | Begin():
                return Result()
            case _:
                return super().execute(request)


class DuckTyped:
    """A connection with the same methods, without the base class."""

    def execute(self, request: Any) -> Any:
        return None if isinstance(request, Close) else Result()

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class OwnDatabase:
    """A database that a user wrote."""

    name = "own"
    max_size = None

    def __init__(self, connection: Executes) -> None:
        self.connection = connection

    def connect(self) -> Executes:
        return self.connection


def an_own_database() -> Database:
    Supervisor.start(OwnDatabase(DuckTyped()))
    return OwnDatabase(OwnConnection())


# --- calls --------------------------------------------------------------------------------


def count(connection: object, table: str) -> int:
    return len(table)


async def wait(db: SupervisorRef) -> None:
    db.wait(timeout=1.0)
    assert_type(db.wait(block=False), Reply[None])
    await db.wait(block=False)


def page(connection: object, table: str, size: int = 10, *, last: bool = False) -> list[str]:
    return [table] * size


def insert(connection: object, *names: str) -> None: ...


class Books:
    def __init__(self, connection: object, shelf: int) -> None: ...

    def add(self, connection: object, title: str) -> int:
        return len(title)

    @classmethod
    def all(cls, connection: object, shelf: int) -> "Books":
        return cls(connection, shelf)

    @staticmethod
    def clear(connection: object) -> bool:
        return True

    def __call__(self, connection: object, pages: int) -> float:
        return float(pages)


def call(books: Books, unknown: Callable[..., str]) -> None:
    assert_type(Call(count, "t"), Call[int])
    assert_type(Call(count, "t", readonly=True, timeout=1.0), Call[int])
    assert_type(Call(page, "t"), Call[list[str]])
    assert_type(Call(page, "t", 5), Call[list[str]])
    assert_type(Call(partial(page, size=5, last=True), "t"), Call[list[str]])
    assert_type(Call(insert), Call[None])
    assert_type(Call(insert, "a", "b"), Call[None])
    assert_type(Call(books.add, "Emma"), Call[int])
    assert_type(Call(books, 5), Call[float])
    assert_type(Call(Books, 5), Call[Books])
    assert_type(Call(Books.all, 5), Call[Books])
    assert_type(Call(Books.clear), Call[bool])
    assert_type(Call(unknown, 1, "two"), Call[str])
    assert_type(Call(lambda connection: 5), Call[int])
    # The type checker refuses parameters that do not fit.
    Call(count)  # type: ignore[arg-type]
    Call(count, 5)  # type: ignore[arg-type]
    Call(count, "t", "t")  # type: ignore[arg-type]
    Call(page, "t", "t")  # type: ignore[arg-type]
    Call(page, "t", last=True)  # type: ignore[call-arg]
    Call(insert, "a", 5)  # type: ignore[arg-type]
    Call(books.add, 5)  # type: ignore[arg-type]
    Call(Books.clear, 5)  # type: ignore[arg-type]
    Call(5)  # type: ignore[arg-type]


def stop(db: SupervisorRef) -> None:
    assert_type(db.stop(), bool)
    assert_type(db.stop(timeout=1.0), bool)
    assert_type(db.stop(block=False), Reply[bool])
    assert_type(db.wait_until_ended(1.0), bool)


def a_crew_is_no_proxy(db: SupervisorRef) -> None:
    assert_type(db.proxy(), Never)


def is_wide(row: Row) -> bool:
    return len(row) > 10


def add_width(total: int, row: Row) -> int:
    return total + len(row)


def reply(reply: Reply[Result], other: pykka.Future[int]) -> None:
    assert_type(reply.get(timeout=1), Result)
    assert_type(reply.done(), bool)
    assert_type(reply.exception(), BaseException | None)
    assert_type(reply.map(len), Reply[int])
    assert_type(reply.map(lambda rows: rows.column("name")), Reply[list[Any]])
    assert_type(reply.map(lambda rows: rows.one()).map(lambda row: row.asdict()), Reply[dict[str, Any]])
    assert_type(reply.join(other), Reply[Iterable[Any]])
    assert_type(reply.filter(is_wide), Reply[Iterable[Row]])
    assert_type(reply.reduce(add_width, 0), Reply[int])
    reply.add_done_callback(lambda reply: assert_type(reply, Reply[Result]))
    future: pykka.Future[Result] = reply
    assert_type(future.get(), Result)


async def await_it(db: SupervisorRef) -> None:
    assert_type(await db.ask(Query("SELECT 1"), block=False), Result)
    assert_type(await db.ask(Query("SELECT 1"), block=False).map(len), int)


def result(result: Result) -> None:
    assert_type(result[0], Row)
    assert_type(result[1:], list[Row])
    assert_type([row for row in result], list[Row])  # noqa: C416  # the type of an item of an iteration
    assert_type(result.first(), Row | None)
    assert_type(result.one(), Row)
    assert_type(result.columns, tuple[str, ...])
    assert_type(result.rows, list[tuple[Any, ...]])
    assert_type(result.lastrowid, int | None)
    assert_type(result.dicts(), list[dict[str, Any]])
    assert_type(result.one().keys(), list[str])
    plain: dict[str, Any] = dict(result.one())
    page(None, **plain)
    page(None, **result.one())


def status(status: CrewStatus) -> None:
    assert_type(status.workers, tuple[WorkerStatus, ...])
    assert_type(status.wait, Durations)
    assert_type(status.run.p95, float)
    status.queued = 5  # type: ignore[misc]


def leave(db: SupervisorRef, kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    assert_type(db.__exit__(kind, error, trace), None)
