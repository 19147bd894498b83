"""CrewActor: a Pykka actor that always reports its end, of any cause."""

from collections.abc import Callable
from typing import Any

import pykka

from actors.inbox import Inbox
from actors.replies.reply import Reply
from actors.system.log import log
from actors.system.pykka_parts import ActorStop, Envelope, strike_off
from actors.system.threads import CrewThread
from actors.system.waiting import Latch

__all__ = ["CrewActor"]


class CrewActor(pykka.ThreadingActor):
    """The life that supervisor and worker share: one loop, and exactly one end.

    Pykka's loop answers a `BaseException` by stopping every actor of the process. An actor whose
    thread dies in another way stays registered and looks alive. This loop replaces Pykka's:

    1. `on_start` runs. Then `on_receive` runs for one message after the other, until
       `actor_stopped`.
    2. Then, after any error too: `on_end` runs, the mailbox is closed, the actor is unregistered,
       and `on_gone` runs. An asynchronous exception may cut this off anywhere. Then all of it runs
       again, so every step of it can be repeated.

    The thread is a daemon, since a crew must not keep a program from ending. `supervisor` closes
    the crews at exit.
    """

    use_daemon_thread = True
    actor_inbox: Inbox
    actor_stopped: Latch  # type: ignore[assignment]  # it has every method of an Event that Pykka and its users need

    def __init__(self) -> None:
        super().__init__()
        self.actor_stopped = Latch()
        self.own_ref: pykka.ActorRef[Any] = pykka.ActorRef(self)
        """The reference in Pykka's registry."""

    @property
    def actor_ref(self) -> pykka.ActorRef[Any]:
        """The reference in Pykka's registry."""
        return self.own_ref

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox()

    @staticmethod
    def _create_future() -> Reply[Any]:
        # Pykka's own future takes a lock in Python code: a thread that is killed there never
        # releases the lock.
        return Reply()

    @property
    def thread_name(self) -> str:
        """The name of the actor's thread."""
        return f"querycrew-{type(self).__name__.lower()}"

    def launch(self) -> None:
        """Register the actor and start its thread. In the thread that wants the actor.

        Raises:
            RuntimeError: no thread could be started. The actor is unregistered again.
        """
        try:
            _quietly(pykka.ActorRegistry.register, self.actor_ref)
            self._start_actor_loop()
        except BaseException:
            self.retire()
            raise

    def _start_actor_loop(self) -> None:
        CrewThread(self._actor_loop, self.thread_name).start()

    def _actor_loop(self) -> None:
        cause: BaseException | None = None
        try:
            try:
                self._actor_loop_setup()
                self._actor_loop_running()
            except BaseException as error:  # noqa: BLE001  # after any error the actor ends properly
                cause = error
            self._end(cause)
        except BaseException as error:  # noqa: BLE001  # it cut the end off
            self._end(cause or error)

    def _actor_loop_setup(self) -> None:
        self.on_start()

    def _actor_loop_running(self) -> None:
        while not self.actor_stopped.is_set():
            # A call for each message: its variables are gone during the wait for the next one.
            self.step(self.actor_inbox.get())

    def step(self, envelope: Envelope[Any]) -> None:
        """Handle one message. In the actor's thread, or in a test's."""
        if isinstance(envelope.message, ActorStop):
            self.on_stop_asked()
        else:
            self.actor_inbox.answer(envelope, self.on_receive(envelope.message))

    def on_stop_asked(self) -> None:
        """Stop after this message. The sender gets its answer once the actor has ended."""
        self.actor_stopped.set()

    def on_end(self, cause: BaseException | None) -> None:
        """Settle and close everything that the actor holds.

        In the actor's thread. It may be called again if it was cut off.
        """

    def on_gone(self, cause: BaseException | None) -> None:
        """Report that the actor is gone, as its last act.

        In the actor's thread. It may be called again if it was cut off.
        """

    def _end(self, cause: BaseException | None) -> None:
        try:
            self.on_end(cause)
        finally:
            self.retire()
            self.on_gone(cause)

    def retire(self) -> None:
        """Refuse all further messages, and end the loop.

        From any thread; it may be called again.
        """
        self.actor_stopped.set()
        self.actor_inbox.close()
        _quietly(pykka.ActorRegistry.unregister, self.actor_ref)
        if pykka.ActorRegistry.get_by_urn(self.actor_urn) is not None:  # a kill has cut `_quietly` off
            pykka.ActorRegistry.unregister(self.actor_ref)

    def forget_the_parent(self) -> None:
        """In the child of a fork: close the mailbox.

        The actor's thread is not in this process, and may hold a lock.
        """
        self.actor_inbox.forget_the_parent()
        self.actor_stopped.set()
        strike_off(self.actor_urn)


def _quietly(change: Callable[[Any], object], ref: "pykka.ActorRef[Any]") -> None:
    """Change the registry.

    Pykka logs after the change; the error of a logging filter is ignored.
    """
    try:
        change(ref)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # see above
        log(__name__, "debug", "registry_logging_failed", error=error)
