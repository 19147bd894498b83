"""Data on each node of a Ray cluster, and one query over all of them: `python on_a_cluster.py`.

It needs the extra: `pip install 'querycrew[ray]'`. It starts a cluster of three nodes on this
machine, and stops one of the nodes in the middle of a query.
"""

import os
import signal
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from ray.cluster_utils import Cluster

from supervisor import Query, Ray, Reply, Result, Script, SQLite, Status, Supervisor, SupervisorRef

CITIES = ("Bern", "Lima", "Oslo")
PARTIAL = "SELECT city, count(*) AS sales, sum(price) AS total FROM sales GROUP BY city"
MERGED = "SELECT city, sum(sales), round(1.0 * sum(total) / sum(sales), 2) FROM partial GROUP BY city ORDER BY city"
SLOW = f"""
WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000000)
SELECT partial.* FROM ({PARTIAL}) AS partial, (SELECT max(i) FROM n)
"""


def fill(crew: SupervisorRef, first: int) -> None:
    """Store the sales of one node."""
    crew.ask(Script("CREATE TABLE sales(city, price)"))
    sales = [(CITIES[number % 3], number % 50) for number in range(first, first + 300)]
    crew.ask(Query("INSERT INTO sales VALUES (?, ?)", many=sales))


def ask_all(crews: Mapping[str, SupervisorRef], query: Query) -> dict[str, Reply[Result]]:
    """Ask all nodes at once."""
    return {node: crew.ask(query, block=False) for node, crew in crews.items()}


def merge(memory: SupervisorRef, replies: Mapping[str, Reply[Result]]) -> list[Any]:
    """Print how each node has answered, and merge the partial results that came."""
    memory.ask(Script("DROP TABLE IF EXISTS partial; CREATE TABLE partial(city, sales, total)"))
    for node, reply in replies.items():
        error = reply.exception()
        if error is None:
            memory.ask(Query("INSERT INTO partial VALUES (?, ?, ?)", many=reply.get().rows))
        print(f"{node}:", "answered" if error is None else f"{type(error).__name__}, executed={error.executed}")
    return memory.ask(Query(MERGED)).rows


def main(folder: str) -> None:
    """Fill three nodes, ask all of them, and lose one."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = {f"node {number}": cluster.add_node(num_cpus=1) for number in (1, 2, 3)}
    print("the cluster has", len(Ray(":memory:", cluster.address).nodes()), "nodes with its head")

    # On real machines the path would be the same on each node. Here all nodes are one machine.
    crews = {
        name: Supervisor.start(Ray(SQLite(f"{folder}/{name}.db"), cluster.address).on(node.node_id), size=1)
        for name, node in nodes.items()
    }
    memory = Supervisor.start()
    for number, crew in enumerate(crews.values()):
        fill(crew, 1000 * number)
    print(merge(memory, ask_all(crews, Query(PARTIAL))))

    replies = ask_all(crews, Query(SLOW))
    while not all(crew.ask(Status()).running for crew in crews.values()):
        time.sleep(0.01)
    for worker in crews["node 3"].ask(Status()).workers:  # a machine takes its processes with it
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGKILL)
    cluster.remove_node(nodes["node 3"], allow_graceful=False)
    print(merge(memory, replies))
    print(merge(memory, ask_all(crews, Query(PARTIAL))))

    for crew in (*crews.values(), memory):
        crew.stop()
    cluster.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
