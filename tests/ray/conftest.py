"""Fixtures for the tests over Ray: a local cluster for all of them, and clusters to break."""

import os
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from supervisor import Ray, SQLite

_HERE = os.path.dirname(__file__)
_SMALL: dict[str, Any] = {"object_store_memory": 100 << 20}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder; skip them where Ray is missing."""
    for item in items:
        if str(item.path).startswith(_HERE):
            item.add_marker(pytest.mark.ray)
            if find_spec("ray") is None:
                item.add_marker(pytest.mark.skip(reason="the library ray is not installed: pip install ray"))


def new_cluster(port: int | None = None, cpus: int = 2) -> Any:
    """Start the head of a cluster on this machine; `port` is the one to listen to."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        head: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False, **_SMALL}
        if port is not None:
            head["gcs_server_port"] = port
        return Cluster(initialize_head=True, head_node_args=head)


def add_node(cluster: Any, **options: Any) -> Any:
    """Add a node to a cluster, and wait until it is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cluster.add_node(**{"num_cpus": 2, **_SMALL, **options})


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A cluster of one node for all tests that do no harm to it."""
    cluster = new_cluster()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="session")
def address(cluster: Any) -> Iterator[str]:
    """The address of that cluster. A connection is kept open, so that its gateway stays."""
    keeper = Ray(SQLite(), cluster.address).connect()
    yield cluster.address
    keeper.close()


@pytest.fixture
def make_cluster(cluster: Any) -> Iterator[Callable[..., Any]]:
    """Start clusters for one test; the fixture stops them.

    The first cluster of a process leaves descriptors of Ray behind. So the common cluster is first.
    """
    del cluster
    made: list[Any] = []

    def make(**options: Any) -> Any:
        made.append(new_cluster(**options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.shutdown()
