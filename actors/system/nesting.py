"""Whether a `repr` is shown by itself, or inside the one of another object."""

import sys

__all__ = ["inside_another_repr"]


def inside_another_repr() -> bool:
    """Say whether the `__repr__` that calls this was itself called for the `repr` of another object.

    A class written in Python leaves a frame named `__repr__`. A container written in C leaves none:
    CPython notes in each thread which containers it is showing. Another interpreter tells less.
    """
    frame = sys._getframe(1).f_back
    while frame is not None:
        if frame.f_code.co_name == "__repr__":
            return True
        frame = frame.f_back
    return _is_showing_a_container()


def _is_showing_a_container() -> bool:
    if sys.implementation.name != "cpython":
        return False
    try:
        import ctypes  # only a repr needs it

        # Not as an attribute, which would be shared with the rest of the program.
        get_dict = ctypes.pythonapi["PyThreadState_GetDict"]
        # Not as an object: the reference is a borrowed one, which ctypes would take for its own.
        get_dict.restype = ctypes.c_void_p
        notes: dict[str, object] = ctypes.cast(get_dict(), ctypes.py_object).value
        return bool(notes.get("Py_Repr"))
    except Exception:  # noqa: BLE001  # whatever is missing here, a repr must not fail
        return False
