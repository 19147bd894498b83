"""Placement: workers on each node, and data that lie on one node."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from supervisor import Query, Ray, SQLite, Status
from tests.conftest import eventually
from tests.ray.conftest import add_node, new_cluster
from tests.support.common import PATIENCE, environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    """A cluster of its own: a node that another test has lost counts as alive for a while."""
    cluster = new_cluster()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def second_node(cluster):
    return add_node(cluster, resources={"disk": 1}, labels={"place": "attic"})


@pytest.fixture(scope="module")
def address(cluster, second_node):
    keeper = Ray(SQLite(), cluster.address).connect()
    yield cluster.address
    keeper.close()


def nodes_of(db):
    return Counter(worker.node.rpartition("/")[2] for worker in db.ask(Status()).workers if worker.node)


def test_the_nodes_of_the_cluster_are_listed(address, cluster, second_node):
    nodes = {node.number: node for node in Ray(":memory:", address).nodes()}
    assert set(nodes) == {cluster.head_node.node_id, second_node.node_id}
    assert nodes[second_node.node_id].resources["disk"] == 1
    assert nodes[second_node.node_id].labels["place"] == "attic"


def test_each_node_gets_the_same_number_of_workers(start, address, cluster, second_node, path):
    db = start(Ray(path, address, each_node=True), size=4)
    two = {cluster.head_node.node_id[:8]: 2, second_node.node_id[:8]: 2}
    assert eventually(lambda: nodes_of(db) == two, PATIENCE)


@pytest.mark.parametrize("options", [{"resources": {"disk": 0.1}}, {"label_selector": {"place": "attic"}}])
def test_resources_and_labels_choose_the_node(start, address, second_node, options):
    db = start(Ray(SQLite(), address, options=options))
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1
    assert set(nodes_of(db)) == {second_node.node_id[:8]}


def test_the_example_of_three_nodes_prints_the_promised_lines(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "on_a_cluster.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout
        == """\
the cluster has 4 nodes with its head
node 1: answered
node 2: answered
node 3: answered
[('Bern', 300, 24.5), ('Lima', 300, 24.5), ('Oslo', 300, 24.5)]
node 1: answered
node 2: answered
node 3: WorkerDied, executed=None
[('Bern', 200, 24.5), ('Lima', 200, 24.5), ('Oslo', 200, 24.5)]
node 1: answered
node 2: answered
node 3: DatabaseUnavailable, executed=False
[('Bern', 200, 24.5), ('Lima', 200, 24.5), ('Oslo', 200, 24.5)]
"""
    )
