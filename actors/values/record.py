"""Record: immutable values like frozen dataclasses, which cost less to import and to define.

`dataclasses` imports `inspect`, which takes 4 ms. It generates and compiles six methods for each
class, which takes 0.7 ms. The import of all of this library may take 6 ms. Type checkers treat a
`Record` like a frozen dataclass.
"""

from typing import Any, ClassVar, Never, TypeVar, dataclass_transform

__all__ = ["Record", "store"]

F = TypeVar("F", bound="Record")

store = object.__setattr__
"""A constructor of an immutable class stores a field with it."""


@dataclass_transform(frozen_default=True)
class Record:
    """The base class of immutable values.

    A subclass annotates its fields, in order. A class attribute is the default of a field. The
    subclass gets a constructor, equality and a hash by value, a `repr`, pattern matching and
    pickling. It may check its fields in `__post_init__`. The `repr` leaves out the fields in
    `_hidden`.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _kw_only: ClassVar[bool] = False
    _hidden: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        super().__init_subclass__()
        names = tuple(name for name in cls.__annotations__ if not name.startswith("_"))
        cls._fields = names
        cls._kw_only = kw_only
        type.__setattr__(cls, "__match_args__", names)  # mypy believes that it is Final, as in a dataclass

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self._fields
        kind = type(self)
        if values and (kind._kw_only or len(values) > len(fields)):
            allowed = 0 if kind._kw_only else len(fields)
            message = f"{kind.__name__}() takes {allowed} positional arguments, and {len(values)} were given"
            raise TypeError(message)
        given = dict(zip(fields, values, strict=False))
        for name, value in named.items():
            if name not in fields or name in given:
                why = "was given twice" if name in given else f"is not one of its fields: {', '.join(fields) or 'none'}"
                message = f"{kind.__name__}({name}=…) {why}"
                raise TypeError(message)
            given[name] = value
        for name in fields:
            if name in given:
                store(self, name, given[name])
            elif not hasattr(kind, name):
                message = f"{kind.__name__}() needs {name}"
                raise TypeError(message)
            else:
                store(self, name, getattr(kind, name))
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the fields."""

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self._fields])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self._fields if name not in self._hidden)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._values())

    def __setattr__(self, name: str, value: object) -> Never:
        del value
        message = f"{type(self).__name__} is frozen: {name} cannot be set"
        raise AttributeError(message)

    def __delattr__(self, name: str) -> Never:
        message = f"{type(self).__name__} is frozen: {name} cannot be deleted"
        raise AttributeError(message)


def _restore(kind: type[F], values: tuple[Any, ...]) -> F:
    value = object.__new__(kind)
    for name, item in zip(kind._fields, values, strict=True):
        store(value, name, item)
    return value
