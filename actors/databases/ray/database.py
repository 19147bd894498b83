"""Ray: another database, whose connections live in actors on a Ray cluster."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

from actors.databases.adapter import default_size, errors_of, existing, lanes_of, max_size_in_children
from actors.databases.base import Database
from actors.databases.child.database import ChildProcess, check_interpreter, check_sendable, current_folder
from actors.databases.ray.messages import Cluster, RayNode
from actors.databases.sqlite.database import SQLite
from actors.values.checks import check_bool, check_number
from actors.values.record import Record, store
from actors.values.restart import RestartPolicy

if TYPE_CHECKING:
    from actors.databases.ray.connection import RayConnection

__all__ = ["Ray"]

_MISSING: Final = "Ray needs the library ray: pip install 'querycrew[ray]'"
_OURS: Final = frozenset(
    {"concurrency_groups", "lifetime", "max_concurrency", "max_restarts", "max_task_retries", "name"}
)


@final
class Ray(Record):
    """A database whose connections live in actors on a Ray cluster, one for each worker.

    The supervisor, its queue, deadlines and errors stay in this program. The path of a file is a
    path on the node of the actor. Needs the extra `ray`, on POSIX, and no `__main__` guard.

    A gateway process holds the connection to Ray. So the end of the cluster never ends the program:
    the crew is suspended, and resumes once a cluster is back at the address. With the last worker
    of the program the gateway ends, and all actors with it.

    Raises:
        ModuleNotFoundError: the library ray is not installed; the text names the extra.
        NotImplementedError: as for `ChildProcess`.
        TypeError: the database cannot be sent to another process, or an option has no such type.
        ValueError: an option is out of its range; the text names it.
    """

    database: Database
    """The database that the actors open; a path is a `SQLite` file."""
    address: str | None
    """`"auto"` is the cluster of this machine, `"host:port"` another one. `None` starts a local
    cluster, which ends with the last worker of the program."""
    options: Mapping[str, Any]
    """Options of each actor, as `ray.remote` takes them: `num_cpus` (0 here, unless given),
    `resources`, `label_selector`, `runtime_env`, `memory`, `scheduling_strategy`."""
    each_node: bool
    """Whether each new worker goes to the node with the fewest workers of this crew. So a crew of
    `2 * n` workers has two on each of `n` nodes. Without it Ray spreads the workers."""
    node: str | None
    """The only node for the workers: its name, address, host name or number; see `on`."""
    init: Mapping[str, Any]
    """More arguments of `ray.init`, such as `namespace`, or `num_cpus` of a local cluster."""
    silence: float
    """Seconds. An actor that does not answer for so long is given up, and so is a cluster whose
    head does not answer for twice as long. A function that keeps the interpreter of its actor to
    itself for so long is given up, too."""
    start_timeout: float
    """Seconds after which a worker that has no room on the cluster, or has not opened its
    connection, is given up."""

    _hidden = frozenset({"options", "init"})

    def __init__(
        self,
        database: Database | str | os.PathLike[str],
        address: str | None = "auto",
        *,
        options: Mapping[str, Any] | None = None,
        each_node: bool = False,
        node: str | None = None,
        init: Mapping[str, Any] | None = None,
        silence: float = 3.0,
        start_timeout: float = 20.0,
    ) -> None:
        if isinstance(database, (str, os.PathLike)):
            database = SQLite(database)
        _check_library()
        check_interpreter("Ray")
        if isinstance(database, (ChildProcess, Ray, type)) or not callable(getattr(database, "connect", None)):
            message = f"Ray(database) must be a path or a database, not {type(database).__name__}"
            raise TypeError(message)
        store(self, "database", database)
        for name, value in (("address", address), ("node", node)):
            if value is not None and not isinstance(value, str):
                message = f"Ray({name}) must be a str or None, not {type(value).__name__}"
                raise TypeError(message)
            store(self, name, value)
        store(self, "options", _checked_options(options))
        store(self, "init", _mapping("init", init))
        store(self, "each_node", check_bool("Ray", "each_node", each_node))
        check_number("Ray", "silence", silence, at_least=0.1)
        store(self, "silence", silence)
        check_number("Ray", "start_timeout", start_timeout, at_least=0.1)
        store(self, "start_timeout", start_timeout)
        check_sendable("Ray", database)
        store(self, "_home", current_folder())

    @property
    def home(self) -> str | None:
        """The working folder at the time of the call: actors find modules from there."""
        return getattr(self, "_home", None) or current_folder()

    @property
    def name(self) -> str:
        """The name of the database on the nodes."""
        return self.database.name

    @property
    def max_size(self) -> int | None:
        """The most actors that can share the database, on all nodes together."""
        return max_size_in_children(self.database)

    @property
    def default_size(self) -> int | None:
        """As of the database on the nodes."""
        return default_size(self.database)

    @property
    def memory_limit(self) -> None:
        """None. Ray has an option `memory`, by which it places actors."""
        return

    @property
    def restart(self) -> RestartPolicy:
        """A cluster that was away is asked again at least every second."""
        return RestartPolicy(backoff_max=1.0, start_timeout=2 * self.start_timeout + 10, grace=1.0)

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """As of the database on the nodes: its errors arrive here as they were raised."""
        return errors_of(self.database)

    def __str__(self) -> str:
        where = "a local cluster" if self.address is None else self.address
        return f"Ray({self.database} on {where}{'' if self.node is None else f', node {self.node}'})"

    def cluster(self) -> Cluster:
        """Return the cluster that a gateway connects to."""
        return Cluster(self.address, self.init, self.silence)

    def on(self, node: str) -> "Ray":
        """Return the same database on one node only: for the data that lie there.

        Args:
            node: the name, address, host name or number of the node. A `Status` shows it.
        """
        return self._with(self.database, node=node)

    def nodes(self) -> tuple[RayNode, ...]:
        """Return the nodes of the cluster that live. Connects to the cluster; blocks for seconds.

        Raises:
            ConnectionError: no cluster answers.
            TimeoutError: it did not answer within `start_timeout`.
        """
        from actors.databases.ray.connection import nodes_of

        return nodes_of(self)

    def lanes(self) -> "tuple[Ray, ...]":
        """Return the databases of the readers and of the writer, each in actors."""
        return tuple(self._with(database) for database in lanes_of(self.database))

    def existing(self) -> "Ray":
        """Return the database to connect to after the first worker was up; see `Database`."""
        return self._with(existing(self.database))

    def _with(self, database: Database, **changes: Any) -> "Ray":
        other: Ray = object.__new__(Ray)  # this value was checked when it was made
        for field in self._fields:
            store(other, field, changes.get(field, getattr(self, field)))
        store(other, "database", database)
        store(other, "_home", self.home)
        return other

    def connect(self) -> "RayConnection":
        """Create an actor, and wait until its connection is open.

        Raises:
            ConnectionError: no cluster answers, or it has no room; the text says which.
            ChildProcessEnded: the actor ended before that.
            TimeoutError: it took longer than `start_timeout`.
            Exception: the database's own error.
        """
        from actors.databases.ray.connection import RayConnection  # only its users pay for this import

        return RayConnection(self)


def _check_library() -> None:
    from importlib.util import find_spec  # the library itself takes a second to import

    if find_spec("ray") is None:
        raise ModuleNotFoundError(_MISSING, name="ray")


def _checked_options(options: object) -> dict[str, Any]:
    checked = _mapping("options", options)
    if taken := sorted(_OURS & checked.keys()):
        message = f"Ray(options) must not have {', '.join(taken)}: the crew itself decides that"
        raise ValueError(message)
    return checked


def _mapping(name: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        message = f"Ray({name}) must be a mapping with names as keys, not {type(value).__name__}"
        raise TypeError(message)
    return dict(value)
