"""The machine on which a figure was measured."""

import os
import platform
import sqlite3
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import apsw

__all__ = ["cpus", "describe", "folder_on_disk"]


def cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def folder_on_disk() -> str | None:
    """Return a folder for temporary files on a disk, not in memory; `None`: the usual folder."""
    folders = [tempfile.gettempdir(), "/var/tmp", str(Path.cwd())]
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kinds = {line.split()[1]: line.split()[2] for line in lines}
    for folder in folders:
        places = [str(place) for place in (Path(folder).resolve(), *Path(folder).resolve().parents)]
        if next(kinds[place] for place in places if place in kinds) not in ("tmpfs", "ramfs"):
            return folder
    return None


def describe() -> str:
    """Return machine and versions in one line."""
    return (
        f"{cpus()} CPUs ({_model()}), {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}, Pykka {_version('pykka')}, "
        f"APSW {apsw.apsw_version()} with SQLite {apsw.sqlite_lib_version()}, "
        f"sqlite3 with SQLite {sqlite3.sqlite_version}, aiosqlite {_version('aiosqlite')}"
    )


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
