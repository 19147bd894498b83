"""How much memory another process has for itself."""

from actors.status import CrewStatus, WorkerStatus

__all__ = ["private_bytes", "with_memory"]


def private_bytes(pid: int) -> int | None:
    """Return the bytes that only this process uses (its USS); `None` where the system does not tell, or it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as lines:
            kilobytes = [int(line.split()[1]) for line in lines if line.startswith(b"Private_")]
    except OSError:
        return None
    return sum(kilobytes) * 1024 if kilobytes else None


def with_memory(status: CrewStatus) -> CrewStatus:
    """Return `status` with the memory of the workers that have a process: a file to read for each."""
    if not any(worker.pid for worker in status.workers):
        return status
    values = {name: getattr(status, name) for name in CrewStatus._fields}
    values["workers"] = tuple(map(_measured, status.workers))
    return CrewStatus(**values)


def _measured(worker: WorkerStatus) -> WorkerStatus:
    memory = None if worker.pid is None else private_bytes(worker.pid)
    return WorkerStatus(worker.id, worker.state, worker.job, worker.seconds, worker.pid, memory)
