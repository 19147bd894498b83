"""The crew of a chaos run: the real one, which also counts, measures, and can be aimed at."""

import threading
import time
from typing import Any, ClassVar

from actors.replies.reply import Reply
from actors.staffing import SlotState
from actors.values.events import WorkerUp
from actors.values.requests import WorkerDown
from actors.worker import Worker
from supervisor import Supervisor
from tests.stress.chaos.callers import told


class CountingReply(Reply[Any]):
    """A reply that notices when it accepts two answers."""

    __slots__ = ("answered",)

    answered_twice: ClassVar[list["CountingReply"]] = []

    def __init__(self, crew: object = None) -> None:
        super().__init__(crew)
        self.answered = False
        if told.replies is not None:
            told.replies.append(self)

    def settle(self, outcome: Any) -> bool:
        first = super().settle(outcome)
        if first:
            if self.answered:
                self.answered_twice.append(self)
            self.answered = True
        return first


class ChaosWorker(Worker):
    """A worker that the killer can find, from its first step to its last."""

    targets: ClassVar[dict[int, "ChaosWorker"]] = {}
    aiming: ClassVar[threading.Lock] = threading.Lock()

    def on_start(self) -> None:
        self.targets[threading.get_ident()] = self
        super().on_start()

    def on_gone(self, cause: BaseException | None) -> None:
        # The number of its thread may soon belong to another thread. So the killer must not aim at
        # it.
        with self.aiming:
            self.targets.pop(threading.get_ident(), None)
        super().on_gone(cause)


class ChaosSupervisor(Supervisor):
    """A supervisor that measures from each death notice until the replacement is up."""

    worker_class = ChaosWorker

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.recoveries: list[float] = []
        self.hard_recoveries: list[float] = []
        self._heard: dict[tuple[type, int], float] = {}
        # By the slot's id: since when it is vacant, and whether opening has failed since.
        self._vacant: dict[int, float] = {}
        self._hard: set[int] = set()

    def _hear(self, news: Any) -> None:
        if hasattr(news, "worker_id"):
            self._heard[type(news), news.worker_id] = time.monotonic()
        super()._hear(news)

    def _on_worker_down(self, worker_id: int, cause: BaseException | None, *, was_idle: bool) -> None:
        slot = self._staffing.slot_of(worker_id)
        if slot is not None:
            self._vacant.setdefault(id(slot), self._heard[WorkerDown, worker_id])
            if slot.state is SlotState.STARTING:
                self._hard.add(id(slot))
        super()._on_worker_down(worker_id, cause, was_idle=was_idle)

    def _on_worker_up(self, worker_id: int) -> None:
        slot = id(self._staffing.slot_of(worker_id))
        since = self._vacant.pop(slot, None)
        if since is not None:
            recoveries = self.hard_recoveries if slot in self._hard else self.recoveries
            recoveries.append(self._heard[WorkerUp, worker_id] - since)
        self._hard.discard(slot)
        super()._on_worker_up(worker_id)
