"""The errors of a cluster that cannot be used, with scripted modules of Ray."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from actors.databases.child.frames import FAILED
from actors.databases.child.results_codec import load_error
from actors.databases.ray import driver
from actors.databases.ray.messages import Cluster
from tests.unit.test_ray_relay import ActorDiedError, Link

MISMATCH = "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.13.0\nThis process …\n"


def scripted(monkeypatch, answer, init=None):
    """Play the modules of Ray: `answer` is the error of each question to the head."""

    class GcsClient:
        def __init__(self, **_):
            pass

        def internal_kv_get(self, *_, **__):
            raise RuntimeError(answer)

    def connect(**_):
        if init is not None:
            raise init

    ray, raylet = ModuleType("ray"), ModuleType("ray._raylet")
    ray.init, raylet.GcsClient = connect, GcsClient
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray._raylet", raylet)
    monkeypatch.setattr(driver, "_probe", lambda *_: None)
    monkeypatch.setattr(driver.os, "environ", {})
    return lambda: driver._connect(Cluster("host:1", {}, 3.0))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("RPC error: InvalidAuthToken: missing or incorrect", "wants a token, and this program has none"),
        ("Timed out while waiting for GCS to become available.", "no Ray cluster answers at host:1"),
    ],
)
def test_a_cluster_that_refuses_the_program_is_an_error_at_once(monkeypatch, answer, text):
    with pytest.raises(ConnectionError, match=text):
        scripted(monkeypatch, answer)()


def test_other_versions_are_named_in_one_line(monkeypatch):
    connect = scripted(monkeypatch, "WrongClusterID", RuntimeError(MISMATCH))
    with pytest.raises(ConnectionError, match=r"Ray: 2.60.0 Python: 3.13.0 This process") as caught:
        connect()
    assert "\n" not in str(caught.value)


def test_a_cluster_that_lets_the_program_in_is_connected_to(monkeypatch):
    assert scripted(monkeypatch, "WrongClusterID")().__name__ == "ray"


def test_an_error_names_the_library_that_a_node_lacks():
    link = Link(True, opened=ActorDiedError("a\nModuleNotFoundError: No module named 'apsw.ext'"))
    [(kind, body)] = link.frames(1)
    assert kind == FAILED
    assert "the module apsw is not installed on its node" in str(load_error(body, Exception))
    link.close()


def test_a_node_that_accepts_no_connection_is_not_reached():
    gateway = driver.Gateway(Cluster("host:1", {}, 3.0), SimpleNamespace(), None)
    node = {"NodeID": "a", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": 1}
    assert not gateway.reaches(node)
