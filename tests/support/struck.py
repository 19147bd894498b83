"""A signal handler at any moment of a call."""

import contextlib
import inspect
import sys


def interrupt():
    raise KeyboardInterrupt


class Struck:
    """A profiler that calls `handler` at the `at`-th moment of a call at which a signal handler could run.

    CPython looks for signals as a function begins and after each call. At the beginning and the end of the outermost
    call none of the crew's code can do anything about that: it is as if the signal came just before or after it.
    """

    def __init__(self, at, handler=interrupt):
        self.left = at
        self.handler = handler
        self.where = None

    def __call__(self, frame, event, arg):
        if self.where is not None or event not in ("call", "return", "c_return") or not is_ours(frame):
            return
        if event != "c_return" and not is_ours(frame.f_back):
            return
        if event == "return" and frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
            return  # it may as well be suspended here, where no signal comes
        if not is_called_by_a_test(frame):
            return
        self.left -= 1
        if self.left == 0:
            self.where = f"at {event} in {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
            self.handler()

    @contextlib.contextmanager
    def armed(self):
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)


def is_ours(frame):
    module = "" if frame is None else frame.f_globals.get("__name__", "")
    return module.startswith("actors.") and module != "actors.values.result"  # which only looks at values


def is_called_by_a_test(frame):
    """Say so, except for finalizers, where it would be swallowed, and callbacks of a loop, which is not interrupted.

    A generator that is thrown away swallows it, too.
    """
    while is_ours(frame):
        if frame.f_code.co_name in ("__del__", "<genexpr>"):
            return False
        frame = frame.f_back
    return frame.f_globals["__name__"].startswith("tests.")
