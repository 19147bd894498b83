"""Ahead: the jobs that were sent to a connection behind the one that it runs. Used under the dispatcher's lock only.

A connection that lives elsewhere would idle while an answer travels and the next job comes. So it takes jobs ahead,
and two rules keep that harmless:

1. *At most once.* A job that was sent ahead is taken back (`recall`) or begun, never both; the connection arbitrates.
2. *No fast job waits behind a slow one while another worker is idle.* A worker that finds the queue empty takes back
   half of what another one was sent ahead.

A worker that has anything in hand keeps at least one job of it: its thread waits for an answer, and must get one.

Steps may be cut off, as everywhere (see `Dispatcher`): a token that was drawn by a thread that was killed before it had
put the job back is drawn again by the next one (`Pipelined.recall`), at the latest when its worker asks for more.
"""

from collections.abc import Callable, Mapping

from actors.databases.base import token_of
from actors.job import SENT, Job
from actors.lane import Lane
from actors.member import Member, MemberState

__all__ = ["Ahead"]

_FREE = (MemberState.AWAKE, MemberState.IDLE)


class Ahead:
    """Gives jobs ahead, and takes them back into the lane."""

    def __init__(
        self,
        lane: Lane,
        members: Mapping[int, Member],
        begin: Callable[[Member, Job], object],
        put_back: Callable[[Job], object],
    ) -> None:
        self._lane = lane
        self._members = members
        # Notes that a member runs a job.
        self._begin = begin
        # Puts a job into the lane again, before all others.
        self._put_back = put_back
        self.members: list[Member] = []
        """Those whose connections take jobs ahead; empty in most crews."""

    def __len__(self) -> int:
        """Say how many jobs are ahead."""
        return sum(job is not member.job for member in self.members for job in member.in_hand())

    @property
    def most(self) -> int:
        """How many jobs are ahead at most, which costs less to say."""
        return sum(len(member.ahead) for member in self.members)

    def room(self, member: Member) -> int:
        """Return how many jobs a busy member is to be given ahead now.

        Its fair share of the queue, and only when half of what it had is done: each giving costs two system calls.
        """
        assert member.pipeline is not None
        depth, in_hand = member.pipeline.depth, 1 + len(member.ahead)
        waiting = len(self._lane)
        if in_hand > depth // 2 or not waiting:
            return 0
        others = [other for other in self._members.values() if other.lane is self._lane]
        if not any(other.state in _FREE for other in others):
            waiting += len(others) - 1  # rounded up: nobody else is about to take it
        return min(depth - in_hand, waiting // len(others))

    def give(self, member: Member, job: Job) -> None:
        """Note that `job`, the first of the lane, is sent to `member` behind what that has."""
        job.member = member
        job.state = SENT
        member.ahead.append(job)
        self._lane.jobs.pop(job, None)

    def advance(self, member: Member) -> None:
        """Let the first of those ahead be the one that runs, if there is no other."""
        if member.ahead:
            first = member.ahead[0]
            if member.job is None:
                self._begin(member, first)
            if member.job is first:
                member.ahead.popleft()

    def recall(self, member: Member, most: int | None = None, *, all_of_them: bool = False) -> int:
        """Take back so many jobs of `member` at most, or all that it has not begun; return how many.

        Args:
            member: whose.
            most: how many; `None` for as many as leave it one.
            all_of_them: take even the last: nobody waits for its answers any more.
        """
        if member.pipeline is None:
            return 0
        back = self._deal(member, 0)
        if most == 0:
            self.advance(member)
            return back
        in_hand = len(member.in_hand())
        limit = in_hand if all_of_them else min(in_hand - 1, in_hand if most is None else most)
        back += self._deal(member, limit)
        if not all_of_them:
            self.advance(member)
        return back

    def _deal(self, member: Member, most: int) -> int:
        """Put back the jobs whose tokens are drawn now, or were by one who was cut off; return how many."""
        assert member.pipeline is not None
        tokens = member.pipeline.recall(most)
        if not tokens:
            return 0
        for token in reversed(tokens):
            job = member.given.get(token)
            if job is None:
                continue  # whoever was cut off has come so far with it
            if job.member is member:  # else it was put back then, and another worker has it
                self._put_back(job)
            if job in member.ahead:
                member.ahead.remove(job)
            if member.job is job:
                member.job = None
            member.given.pop(token, None)
        member.pipeline.recalled()
        return len(tokens)

    def land(self, member: Member, job: Job) -> bool:
        """Note that `job` was answered; say whether it was in the member's hands."""
        if job.member is not member or not member.has(job):
            return False
        token = token_of(job.ticket)
        if member.given.get(token) is job:  # else one that began long after it has that token by now
            member.given.pop(token, None)
        if member.pipeline is not None and member.pipeline.groups and member.job is not job:
            # What came before it has to begin again, or is about to.
            if member.job is not None:
                member.ahead.appendleft(member.job)
            self._begin(member, job)
            member.ahead.remove(job)
        while member.job is not job:
            # Answers come in the order of the giving: what was before it will never be answered.
            lost, member.job = member.job, None
            if lost is not None and lost.member is member:
                self._put_back(lost)
            self.advance(member)
        return True

    def steal(self) -> bool:
        """Take back half of the jobs of whoever has most ahead, and gives any back; say whether somebody has."""
        for rich in sorted(self.members, key=lambda member: len(member.ahead), reverse=True):
            if rich.ahead and self.recall(rich, (len(rich.ahead) + 1) // 2):
                return True
        return False

    def recall_everything(self) -> None:
        """Take back whatever nobody has begun."""
        for member in list(self.members):
            if member.ahead:
                self.recall(member)
