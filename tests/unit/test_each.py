"""Many cases in one test: all are checked, and each failure is told."""

from __future__ import annotations

import pytest

from tests.unit.each import each


def test_each_case_is_checked() -> None:
    seen: list[int] = []
    each(number=range(3))(lambda number: seen.append(number))()
    assert seen == [0, 1, 2]


def test_each_failure_is_told() -> None:
    def check(number: int) -> None:
        assert number % 2

    with pytest.raises(ExceptionGroup, match=r"2 of 4 are wrong: number: 0; number: 2") as caught:
        each(number=range(4))(check)()
    assert [error.__notes__ for error in caught.value.exceptions] == [["number: 0"], ["number: 2"]]


def test_no_case_is_no_success() -> None:
    with pytest.raises(AssertionError, match="no number"):
        each(number=())(lambda number: None)()


@each(number=[1, 2])
def test_other_arguments_are_fixtures(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(monkeypatch, pytest.MonkeyPatch)
    assert number in (1, 2)
