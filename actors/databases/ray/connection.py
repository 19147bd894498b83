"""RayConnection: a connection that lives in a Ray actor, as its worker sees it."""

import marshal
import pickle
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from actors.databases.child.connection import ChildConnection
from actors.databases.child.process import Peer, module_path
from actors.databases.ray.gateway import link_to
from actors.databases.ray.messages import Placement, RayNode
from actors.values.errors import ConnectionLost

if TYPE_CHECKING:
    from actors.databases.ray.database import Ray
    from actors.databases.ray.gateway import Link

__all__ = ["RayConnection", "nodes_of"]


def nodes_of(database: "Ray") -> tuple[RayNode, ...]:
    """Return the nodes of the cluster that live.

    Raises:
        ConnectionError: no cluster answers.
        TimeoutError: the cluster did not answer in time.
    """
    asking = _NodeList(database)
    asking.close()
    return asking.nodes


class _Linked(ChildConnection):
    """A connection by a link of the gateway."""

    def __init__(self, database: "Ray") -> None:
        self._database = database
        super().__init__(database)

    def _peer(self) -> tuple[Callable[..., Peer], tuple[Any, ...]]:
        return link_to, (self._database.cluster(), self._database.home)


class RayConnection(_Linked):
    """Like a connection in a child process. The gateway stands between, and an actor at the end.

    The gateway draws the tokens of the jobs that it hands to the actor. It returns the jobs that
    the actor has not begun.
    """

    def _open(self, deadline: float) -> None:
        try:
            super()._open(deadline)
        except TimeoutError:
            if time.monotonic() >= deadline:  # the gateway would have told its own reason before that
                self._link.end_gateway()
                limit = self._database.start_timeout
                message = f"the gateway to Ray has not opened {self._database} within {limit:g} seconds"
                raise TimeoutError(message) from None
            raise

    @property
    def _link(self) -> "Link":
        return cast("Link", self._child)

    def _packed_specification(self) -> bytes:
        database = self._database
        limit = database.start_timeout
        placement = Placement(
            crew=str(database),
            each_node=database.each_node,
            node=database.node,
            options=database.options,
            # A little earlier than this end gives up: so the caller hears the reason.
            until=time.monotonic() + limit - min(1.0, limit / 4),
        )
        path = marshal.loads(module_path(database.home))
        return pickle.dumps((pickle.dumps(database.database), path, placement))

    def _take_facts(self, warnings: tuple[str, ...], reads_only: bool, *facts: Any) -> None:
        super()._take_facts(warnings, reads_only)
        self.pid, host, node = facts
        self.node = f"{host}/{node[:8]}"
        self._link.name = f"Ray actor {self.pid} on {self.node}"

    def close(self) -> None:
        """Close the connection, and end its actor; see `Connection`."""
        self._link.was_lost = self._link.was_lost or self._failure is not None
        super().close()

    def _unbegun(self, *, has_begun: bool) -> list[Any]:
        """Return the tasks that may run again; see `ChildConnection`.

        If the gateway itself has ended, all jobs of a reader run again: no statement has ended it.
        """
        if self._link.is_orphaned and self.reads_only:
            has_begun = False
        return super()._unbegun(has_begun=has_begun)

    def _lost(self, **flags: bool) -> ConnectionLost:
        if self._link.is_orphaned:
            flags.setdefault("blames", False)
        return super()._lost(**flags)


class _NodeList(_Linked):
    """A link without an actor, which brings the list of nodes."""

    nodes: tuple[RayNode, ...] = ()

    def _packed_specification(self) -> bytes:
        return pickle.dumps(None)

    def _take_facts(self, *nodes: Any) -> None:
        self.nodes = tuple(RayNode(*node) for node in nodes)
