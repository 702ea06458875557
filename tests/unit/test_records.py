"""A record behaves as the dataclass beside it, which :mod:`dataclasses` has made whole."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from ccid.ground.records import record, vars_of


@record
class Ours:
    """A record."""

    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list)
    d: int = field(default=0, repr=False, compare=False)
    e: int = field(default=5, kw_only=True)

    @property
    def double(self) -> int:
        return self.a * 2


@dataclass(frozen=True, slots=True)
class Theirs:
    """The same, by dataclasses."""

    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list)
    d: int = field(default=0, repr=False, compare=False)
    e: int = field(default=5, kw_only=True)

    @property
    def double(self) -> int:
        return self.a * 2


BOTH = pytest.mark.parametrize("kind", [Ours, Theirs])


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((1,), {}),
        ((1, "x", [2], 3), {"e": 4}),
        ((), {"a": 1, "d": 7}),
        ((1,), {"c": (2,)}),
    ],
)
def test_a_record_is_made_compared_and_shown_as_a_dataclass(
    values: tuple[Any, ...], named: dict[str, Any]
) -> None:
    ours, theirs = Ours(*values, **named), Theirs(*values, **named)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs) == vars_of(ours)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert ours == dataclasses.replace(ours, d=99)
    assert ours != dataclasses.replace(ours, e=99)
    assert ours.__eq__(theirs) is NotImplemented
    assert ours.double == theirs.double


@BOTH
@pytest.mark.parametrize(
    "make",
    [
        lambda kind: kind(),
        lambda kind: kind(1, "b", [], 0, 5),
        lambda kind: kind(1, a=2),
        lambda kind: kind(1, nothing=2),
    ],
)
def test_wrong_values_are_type_errors(kind: Any, make: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        make(kind)


@BOTH
def test_a_record_cannot_be_changed(kind: Any) -> None:
    one = kind(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.a = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.a
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        one.nothing = 2
    assert one.a == 1
    assert not hasattr(one, "__dict__")


@BOTH
def test_each_record_has_a_list_of_its_own(kind: Any) -> None:
    assert kind(1).c is not kind(1).c


@BOTH
def test_copies_are_equal(kind: Any) -> None:
    one = kind(1, "x", [2], 3, e=4)
    for again in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert again == one
        assert again.d == 3
    changed = dataclasses.replace(one, b="y")
    assert (changed.a, changed.b, changed.d, changed.e) == (1, "y", 3, 4)


@BOTH
def test_a_record_is_matched_by_place(kind: Any) -> None:
    assert kind.__match_args__ == ("a", "b", "c", "d")


@record
class Point:
    """Can be hashed, and is checked."""

    x: int
    y: int = 0

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x")
        object.__setattr__(self, "y", self.y + 1)


def test_a_record_can_be_hashed_where_its_values_can() -> None:
    assert {Point(1, 2), Point(1, 2), Point(1, 3)} == {Point(1, 3), Point(1, 2)}
    with pytest.raises(TypeError):
        hash(Ours(1))


def test_a_record_looks_after_its_values() -> None:
    assert Point(1).y == 1
    with pytest.raises(ValueError, match="x"):
        Point(-1)


def test_a_copy_is_not_looked_after_again() -> None:
    assert copy.copy(Point(1)).y == 1


def test_nothing_is_compiled_for_a_record() -> None:
    """That is what records are for."""
    of_module = inspect.getfile(record)
    for name in ("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__reduce__"):
        assert inspect.getfile(getattr(Point, name)) == of_module
