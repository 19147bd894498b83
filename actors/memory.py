"""How much memory another process has for itself."""

import os

from actors.values.status import CrewStatus, WorkerStatus

__all__ = ["private_bytes", "with_memory"]


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def private_bytes(pid: int) -> int | None:
    """Return the bytes that a process has for itself, apart from files; `None` where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as pages:
            _, resident, shared, *_ = map(int, pages.read().split())
    except OSError:
        return None
    return (resident - shared) * _PAGE


def with_memory(status: CrewStatus) -> CrewStatus:
    """Return `status` with the memory of the workers that have a process: a file to read for each."""
    if not any(worker.pid for worker in status.workers):
        return status
    values = {name: getattr(status, name) for name in CrewStatus._fields}
    values["workers"] = tuple(map(_measured, status.workers))
    return CrewStatus(**values)


def _measured(worker: WorkerStatus) -> WorkerStatus:
    memory = None if worker.pid is None else private_bytes(worker.pid)
    values = {name: getattr(worker, name) for name in WorkerStatus._fields}
    return WorkerStatus(**{**values, "memory": memory})
