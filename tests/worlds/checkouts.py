"""Clients that hold a worker: transactions, streams and backups."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pykka

from actors.values.errors import QuerycrewError, SessionClosed
from actors.values.requests import Backup, Query, Stream
from tests.worlds.fault_plan import Interrupted, Scripted
from tests.worlds.history import ClientTransaction
from tests.worlds.requests import rows_of

if TYPE_CHECKING:
    from tests.worlds.clients import Client

_EXPECTED = (QuerycrewError, pykka.Timeout, Scripted, MemoryError, Interrupted, InterruptedError, TypeError)
_LIMITS = (None, 0.05, 0.5, 5.0)


def _transaction(client: "Client") -> None:
    """Write some numbers in a transaction, and commit, roll back, or leave by an error."""
    world = client.world
    readonly = world.chance() < 0.3
    checkout = ClientTransaction()
    world.history.checkouts.append(checkout)
    tx = world.ref.transaction(readonly=readonly, timeout=5.0, wait=world.random.choice(_LIMITS))
    world.say(f"begins a transaction, {readonly=}")
    try:
        tx.begin()
        for _ in range(world.random.randrange(4)):
            _ask_in(client, tx, checkout, readonly=readonly)
            if world.chance() < 0.2:
                world.spend(world.random.choice((0.01, 0.3, 6.0)))
        if world.chance() < 0.3:
            tx.rollback()
            return
        checkout.is_committed = None
        tx.commit()
        checkout.is_committed = True
    except KeyboardInterrupt:
        _roll_back(tx)
        raise
    except _EXPECTED as error:
        if checkout.is_committed is None:
            checkout.is_committed = _executed(error)
        _roll_back(tx)
    finally:
        world.say(f"the transaction is over: {checkout.is_committed}")


def _roll_back(tx: Any) -> None:
    """Roll back, without effect if the commit is next."""
    with suppress(SessionClosed):  # it has never begun
        tx.rollback(block=False)


def _executed(error: BaseException) -> bool | None:
    return getattr(error, "executed", False)


def _ask_in(client: "Client", tx: Any, checkout: ClientTransaction, *, readonly: bool) -> None:
    world = client.world
    entry = world.history.new(world.file.total())
    entry.in_checkout = True
    if world.chance() < 0.2:
        _take_rows(client, tx.ask(Stream("SELECT s", (entry.number,), chunk=2)), entry.number)
        return
    does_write = not readonly and world.chance() < 0.7
    entry.request = Query("INSERT a" if does_write else "SELECT a", (entry.number,))
    try:
        answer = tx.ask(entry.request)
    except (Scripted, MemoryError, TypeError):
        return  # undone alone
    if does_write:
        checkout.numbers.append(entry.number)
    if answer.scalar() != entry.number:
        world.blame(f"in a transaction, {entry.request} got the answer of another")


def _stream(client: "Client") -> None:
    """Take the rows of a stream, all or some."""
    world = client.world
    entry = world.history.new(world.file.total())
    entry.in_checkout = True
    entry.request = Stream("SELECT s", (entry.number,), chunk=2, timeout=world.random.choice(_LIMITS))
    world.say(f"begins the stream {entry.number}")
    try:
        _take_rows(client, world.ref.ask(entry.request), entry.number)
    except _EXPECTED:
        return


def _take_rows(client: "Client", rows: Any, number: int) -> None:
    world, wanted = client.world, rows_of(number)
    most = world.random.choice((len(wanted), len(wanted), 1))
    seen = []
    for row in rows:
        seen.append(tuple(row))
        if world.chance() < 0.1:
            world.spend(world.random.choice((0.01, 0.6)))
        if len(seen) == most and most < len(wanted):
            break
    rows.close()
    if seen != wanted[: len(seen)] or len(seen) < min(most, len(wanted)):
        world.blame(f"the stream {number} gave {seen}, and not {wanted}")


def _backup(client: "Client") -> None:
    world = client.world
    try:
        world.ref.ask(Backup("/nowhere/world.copy", timeout=world.random.choice(_LIMITS)))
    except _EXPECTED:
        return


KINDS = (_transaction, _transaction, _stream, _stream, _backup)
"""The functions that hold a worker."""
