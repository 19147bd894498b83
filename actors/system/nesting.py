"""Whether a `repr` is shown alone, or inside the `repr` of another object."""

import sys

__all__ = ["inside_another_repr"]


def inside_another_repr() -> bool:
    """Say whether the calling `__repr__` runs inside the `repr` of another object.

    A `__repr__` in Python has a frame of that name. A container in C has no frame. CPython notes in
    each thread which containers it is showing. Other interpreters have no such note, and this
    function then sees only the frames.
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

        # `pythonapi.PyThreadState_GetDict` would be shared with the rest of the program.
        get_dict = ctypes.pythonapi["PyThreadState_GetDict"]
        # Not `py_object`: the reference is borrowed, and ctypes would release it.
        get_dict.restype = ctypes.c_void_p
        notes: dict[str, object] = ctypes.cast(get_dict(), ctypes.py_object).value
        return bool(notes.get("Py_Repr"))
    except Exception:  # noqa: BLE001  # a `repr` must not fail, even if the interpreter has no such function
        return False
