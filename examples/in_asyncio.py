"""In asyncio: `await` a reply. The event loop goes on, and a cancelled task cancels its job."""

import asyncio

from supervisor import Query, Status, Supervisor, SupervisorRef

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"


async def count(db: SupervisorRef, upto: int) -> int:
    result = await db.ask(Query(COUNT, (upto,)), block=False)
    counted: int = result.scalar()
    return counted


async def tick(ticks: list[float]) -> None:
    while True:
        ticks.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)


async def main(db: SupervisorRef) -> None:
    ticks: list[float] = []
    ticking = asyncio.create_task(tick(ticks))

    # If a task failed, the group would cancel the other tasks, and they would cancel their jobs.
    async with asyncio.TaskGroup() as group:
        counting = [group.create_task(count(db, upto)) for upto in (2_000_000, 1_000_000, 10)]
    print("counted:", [task.result() for task in counting])
    print("the event loop ran meanwhile:", len(ticks) > 1)

    try:
        async with asyncio.timeout(0.1):
            await count(db, 10**15)
    except TimeoutError:
        print("too slow; the only worker is free for the next one:", await count(db, 10))
    print("cancelled:", db.ask(Status()).cancelled)

    try:
        await db.ask(Query("SELECT 1 FROM nowhere"), block=False)
    except Exception as error:  # noqa: BLE001  # the driver's own class, here apsw.SQLError
        print(f"{type(error).__name__}: {error}")
    ticking.cancel()


if __name__ == "__main__":
    # The start returns at once, but the end of the block waits. So the block stands outside of the
    # event loop. Inside, use `async with`, or `await db.stop(block=False)`.
    with Supervisor.start() as db:
        asyncio.run(main(db))
