"""The campaign: programs run one after the other on one file and are killed; the end is checked."""

import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import apsw

from tests.conftest import eventually
from tests.stress.durability.writer import kind
from tests.support.common import environment

_GAP = 1_000_000  # numbers that no program reaches before it is killed
_BOUND = 2.0  # seconds after which nothing is left of a program that was killed


@dataclass
class Findings:
    """The kills and the findings."""

    seed: int
    programs_killed: int = 0
    children_killed: int = 0
    seconds: float = 0.0
    told: Counter[str] = field(default_factory=Counter)
    lost: list[int] = field(default_factory=list)
    """Acknowledged, and not in the file."""
    twice: list[int] = field(default_factory=list)
    halves: list[int] = field(default_factory=list)
    """Pairs of which one row is there."""
    not_undone: list[int] = field(default_factory=list)
    """Said to be undone, and in the file."""
    strays: list[int] = field(default_factory=list)
    """Children that outlived their program."""
    integrity: str = ""

    @property
    def broken(self) -> dict[str, Any]:
        """Return the wrong findings, by name."""
        wrong = {name: getattr(self, name) for name in ("lost", "twice", "halves", "not_undone", "strays")}
        if self.integrity != "ok":
            wrong["integrity"] = self.integrity
        return {name: value for name, value in wrong.items() if value}

    def table(self) -> str:
        told = ", ".join(f"{word} {count}" for word, count in sorted(self.told.items()))
        verdict = f"broken: {self.broken}" if self.broken else "all invariants hold"
        return (
            f"seed {self.seed}: {self.children_killed} children and {self.programs_killed} programs killed "
            f"in {self.seconds:.0f} s; {told}; integrity {self.integrity}; {verdict}"
        )


def run(folder: Path, kills: int, seed: int, *, workers: int = 3, pause: float = 0.06, life: float = 1.5) -> Findings:
    """Kill until so many children were killed.

    Args:
        folder: the place for the database and the journals.
        kills: how many children.
        seed: for every choice. A real machine decides the moments.
        workers: children at a time.
        pause: seconds between two kills of a child, on average.
        life: seconds until the program itself is killed, on average.
    """
    file, chance, findings = folder / "campaign.db", Random(seed), Findings(seed)
    connection = apsw.Connection(str(file))
    connection.pragma("journal_mode", "wal")
    connection.execute("CREATE TABLE written(number INTEGER, part INTEGER)")
    connection.close()
    journals: list[Path] = []
    began = time.monotonic()
    while findings.children_killed < kills:
        journals.append(folder / f"journal {len(journals)}")
        journals[-1].touch()  # a program may be killed before it can do so
        arguments = [file, journals[-1], len(journals) * _GAP, f"{seed}-{len(journals)}", workers, pause]
        _live_and_die(arguments, chance.uniform(0.3, 2 * life), findings)
    findings.seconds = time.monotonic() - began
    _look(file, journals, findings)
    return findings


def _live_and_die(arguments: list[Any], seconds: float, findings: Findings) -> None:
    command = [sys.executable, "-m", "tests.stress.durability.writer", *map(str, arguments)]
    program = subprocess.Popen(command, env=environment())
    try:
        try:
            program.wait(seconds)
        except subprocess.TimeoutExpired:
            findings.programs_killed += 1
        else:
            findings.told["programs that ended by themselves"] += 1
    finally:
        program.kill()
        program.wait()
    findings.children_killed += _lines(arguments[1])["killed"]
    eventually(lambda: not _children_of(arguments[0]), _BOUND)
    findings.strays += _children_of(arguments[0])


def _lines(journal: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in journal.read_text().splitlines())


def _children_of(file: Path) -> list[int]:
    """Return the numbers of all processes that have the file open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(link.readlink() == file for link in (process / "fd").iterdir()):
                found.append(int(process.name))
        except OSError:
            continue  # it has just ended, or has no descriptors any more
    return found


def _look(file: Path, journals: list[Path], findings: Findings) -> None:
    told: dict[str, set[int]] = {word: set() for word in ("asked", "acknowledged", "denied", "unknown")}
    for journal in journals:
        for line in journal.read_text().splitlines():
            word, number = line.split()
            if word in told:
                told[word].add(int(number))
    connection = apsw.Connection(str(file))
    findings.integrity = connection.pragma("integrity_check")
    rows = Counter(connection.execute("SELECT number, part FROM written").fetchall())
    connection.close()
    present = Counter(number for number, _ in rows)
    findings.told.update({word: len(numbers) for word, numbers in told.items()})
    findings.lost = sorted(told["acknowledged"] - set(present))
    findings.twice = sorted({number for (number, _), count in rows.items() if count > 1})
    findings.halves = sorted(number for number, parts in present.items() if kind(number) != "row" and parts != 2)
    findings.not_undone = sorted(told["denied"] & set(present))
