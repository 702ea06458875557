"""Every error can be copied and pickled, and keeps its attributes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from ccid import errors
from ccid.errors import CcidError, ReaderTableError

OF_THEIR_OWN: dict[str, dict[str, Any]] = {
    "AccessDenied": {"cure": "a rule"},
    "CardRefused": {"sw": 0x6982},
    "ReaderBusy": {"holder": "pcscd", "cure": "stop it"},
    "ReaderTableError": {"file": "a.toml", "line": 7, "key": "reader.3437.status"},
    "MalformedDescriptor": {"field": "bLength"},
    "MalformedMessage": {"field": "dwLength"},
    "ProtocolError": {"may_have_executed": True},
    "PpsFailed": {"may_have_executed": True},
}


def classes(root: type[CcidError] = CcidError) -> Iterator[type[CcidError]]:
    yield root
    for one in root.__subclasses__():
        yield from classes(one)


@pytest.mark.parametrize("cls", sorted(set(classes()), key=str))
def test_a_copy_is_the_same(cls: type[CcidError]) -> None:
    error = cls("what is wrong", **OF_THEIR_OWN.get(cls.__name__, {}))
    error.reader, error.slot, error.bSeq, error.bStatus, error.bError = "a reader", 1, 2, 3, 4
    error.add_note("a note")
    for other in (
        copy.copy(error),
        copy.deepcopy(error),
        *(pickle.loads(pickle.dumps(error, protocol)) for protocol in (2, 5)),
    ):
        assert type(other) is cls
        assert other is not error
        assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


def test_all_are_named() -> None:
    here = {cls.__name__ for cls in classes() if cls.__module__ == "ccid.errors"}
    assert here == set(errors.__all__)


def test_where_a_table_is_wrong_is_said_once() -> None:
    error = ReaderTableError("no status", file="a.toml", line=7, key="reader.3437")
    assert str(copy.copy(error)) == "a.toml:7: reader.3437: no status"
