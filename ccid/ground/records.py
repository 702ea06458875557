"""Records: frozen dataclasses that cost little to import.

:mod:`dataclasses` writes ``__init__``, ``__repr__``, ``__eq__`` and others as source for each
class, and compiles them whenever the class is imported: about a millisecond for each class, a fifth
of the time in which a program has imported this library. A record has the fields, the slots and the
behaviour of ``@dataclass(frozen=True, slots=True)``, but its methods stand here once, for all
records.

To make a record takes some microseconds, where a compiled ``__init__`` takes one. So what is made
for every APDU is a :class:`typing.NamedTuple` or a plain dataclass, and no record.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError
from typing import Any, TypeVar, cast, dataclass_transform

T = TypeVar("T", bound=type)

_set = object.__setattr__


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: T) -> T:
    """Class decorator: as ``@dataclass(frozen=True, slots=True)``."""
    return make(cls)


def make(cls: T, **options: Any) -> T:
    """What :func:`record` does, with more options of :func:`dataclasses.dataclass`. A method that
    ``cls`` or a base of it defines stays."""
    given = {name for one in cls.__mro__[:-1] for name in vars(one)}
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, **options)(cls)
    for name, method in METHODS.items():
        if name not in given:
            setattr(made, name, method)
    fields = dataclasses.fields(made)
    made._defaults = {field.name: field.default for field in fields}
    made._factories = {
        field.name: field.default_factory
        for field in fields
        if field.default_factory is not MISSING
    }
    made._places = tuple(field.name for field in fields if not field.kw_only)
    made._shown = tuple(field.name for field in fields if field.repr)
    made._compared = tuple(field.name for field in fields if field.compare)
    return cast(T, made)


def vars_of(one: Any) -> dict[str, Any]:
    """The fields of a record by name."""
    return {name: getattr(one, name) for name in one._defaults}


def _init(self: Any, *values: Any, **named: Any) -> None:
    kind = type(self).__name__
    if values:
        places = self._places
        if len(values) > len(places):
            raise TypeError(f"{kind} takes {len(places)} values, and {len(values)} were given")
        for name, value in zip(places, values, strict=False):
            if name in named:
                raise TypeError(f"{kind}: {name} is given twice")
            named[name] = value
    for name, default in self._defaults.items():
        value = named.pop(name, default)
        if value is MISSING:
            if name not in self._factories:
                raise TypeError(f"{kind}: {name} is missing")
            value = self._factories[name]()
        _set(self, name, value)
    if named:
        raise TypeError(f"{kind} has no {', '.join(named)}")
    finish: Callable[[], None] | None = getattr(self, "__post_init__", None)
    if finish is not None:
        finish()


def _repr(self: Any) -> str:
    shown = [f"{name}={getattr(self, name)!r}" for name in self._shown]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _values(one: Any) -> tuple[Any, ...]:
    return tuple([getattr(one, name) for name in one._compared])


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), _values(self)))


def _set_attribute(self: Any, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete_attribute(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _reduce(self: Any) -> tuple[Any, ...]:
    return _remade, (type(self), vars_of(self))


def _remade(cls: type[Any], values: dict[str, Any]) -> Any:
    """A copy for :mod:`copy` and :mod:`pickle`."""
    made = object.__new__(cls)
    for name, value in values.items():
        _set(made, name, value)
    return made


METHODS: dict[str, Callable[..., Any]] = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _set_attribute,
    "__delattr__": _delete_attribute,
    "__reduce__": _reduce,
}
"""The methods of all records."""
