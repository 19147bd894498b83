"""The messages between a program and its gateway.

Each message is a frame, as on the pipes of a child (`child/frames.py`). Its ticket is the number of
a link: one worker's connection.
"""

from collections.abc import Mapping
from typing import Any, Final

from actors.values.record import Record

__all__ = ["ENDED", "KILL", "LINK", "Cluster", "Placement", "RayNode"]

LINK, KILL = 100, 101
"""To the gateway: LINK brings the pipes of a new link, as descriptors. KILL ends the link's
actor."""
ENDED: Final = 102
"""From the gateway: the link has ended; the body is the error. Link 0 is the gateway itself."""


class Cluster(Record):
    """The cluster that a gateway connects to. Each cluster has one gateway in a program."""

    address: str | None
    """As for `Ray`."""
    init: Mapping[str, Any]
    """More arguments of `ray.init`."""
    silence: float
    """Seconds after which a cluster, or an actor, that does not answer is given up."""


class RayNode(Record):
    """A node of a cluster."""

    number: str
    """The number that Ray gives the node. No other node ever gets it."""
    address: str
    """Its network address."""
    host: str
    """The name of the machine."""
    resources: Mapping[str, float]
    """All its resources, such as `CPU` and `memory`, whether they are free or not."""
    labels: Mapping[str, str]
    """The labels that were given to the node, and Ray's own."""


class Placement(Record):
    """Where an actor lives."""

    crew: str
    """Workers with the same text are spread over the nodes together."""
    each_node: bool
    """Whether the actor goes to the node with the fewest workers of this crew."""
    node: str | None
    """The name, address or number of the only node."""
    options: Mapping[str, Any]
    """The options of the actor, as `ray.remote` takes them."""
    until: float
    """The monotonic time of this machine at which the actor must have opened its connection."""
