"""Memory: the private memory of the workers' processes."""

import os

from actors.values.status import CrewStatus, WorkerStatus

__all__ = ["private_bytes", "with_memory"]


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def private_bytes(pid: int) -> int | None:
    """Return the private bytes of a process, without mapped files.

    `None` if the system does not say.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as pages:
            _, resident, shared, *_ = map(int, pages.read().split())
    except OSError:
        return None
    return (resident - shared) * _PAGE


def with_memory(status: CrewStatus) -> CrewStatus:
    """Return `status` with the memory of each worker that has a process.

    It reads one file for each.
    """
    if not any(worker.pid and worker.node is None for worker in status.workers):
        return status
    values = {name: getattr(status, name) for name in CrewStatus._fields}
    values["workers"] = tuple(map(_measured, status.workers))
    return CrewStatus(**values)


def _measured(worker: WorkerStatus) -> WorkerStatus:
    memory = None if worker.pid is None or worker.node is not None else private_bytes(worker.pid)
    values = {name: getattr(worker, name) for name in WorkerStatus._fields}
    return WorkerStatus(**{**values, "memory": memory})
