"""In asyncio: `await` a reply; the event loop goes on meanwhile."""

import asyncio

from supervisor import Query, Supervisor, SupervisorRef

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
    # Starting and stopping wait, so they stand outside; `asyncio.to_thread` would do as well.
    print("counted:", await asyncio.gather(count(db, 2_000_000), count(db, 1_000_000), count(db, 10)))
    print("the event loop ran meanwhile:", len(ticks) > 1)
    try:
        await db.ask(Query("SELECT 1 FROM nowhere"), block=False)
    except Exception as error:  # noqa: BLE001  # the driver's own class, here apsw.SQLError
        print(f"{type(error).__name__}: {error}")
    ticking.cancel()


if __name__ == "__main__":
    with Supervisor.start() as db:
        asyncio.run(main(db))
