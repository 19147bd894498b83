"""Messages for a mailbox: some that want an answer, and some that do not."""

import pykka

from actors.system.pykka_parts import Envelope


def asked(message="a question"):
    return Envelope(message, reply_to=pykka.ThreadingFuture())


def told(message="news"):
    return Envelope(message)


def is_settled(envelope):
    try:
        envelope.reply_to.get(timeout=0)
    except pykka.Timeout:
        return False
    except pykka.ActorDeadError:
        return True
    return True
