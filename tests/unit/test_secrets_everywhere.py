"""Every command of the table ``data/secret_commands.csv`` on its whole way: its PIN or key is in no
trace, log, report, output, exception or ``repr``."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, cast

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_XfrBlock
from ccid.codes import ExchangeLevel, Protocol, SlotError
from ccid.errors import CcidError
from ccid.iso7816.apdu import CommandApdu
from ccid.probe import reader_choice
from ccid.probe.report_command import _Notes
from ccid.trace import TRAFFIC
from ccid.virtual import Answer, EchoCard, faults
from tests.unit.conftest import Run
from tests.unit.test_secrets_commands import SECRET, spelled

KEY = b"q7#Zk4!x"
"""What is secret here: no time, number or name has such bytes."""
ANSWER = b"W5%vJ2&n"
"""What the card answers to a secret command: a decrypted text, perhaps."""
PIECE = 4
"""So many bytes of a secret at once are no coincidence."""
WAYS = [(level, protocol) for level in ExchangeLevel for protocol in Protocol]


def told(shown: bytes | str) -> list[str]:
    """The pieces of a secret that ``shown`` has: as text, as bytes, or in hexadecimal."""
    raw = shown.encode("utf-8", "surrogateescape") if isinstance(shown, str) else shown
    plain = raw.lower()
    dense = plain.translate(None, b" :,\n\\x'\"")
    found = []
    for secret in KEY, ANSWER:
        for start in range(len(secret) - PIECE + 1):
            piece = secret[start : start + PIECE]
            if piece in raw or piece.hex().encode() in plain or piece.hex().encode() in dense:
                found.append(piece.decode())
    return found


class Confidant(EchoCard):
    """A card that takes the data of any command and answers with a secret."""

    def takes_data(self, header: bytes) -> bool:
        return True

    def process(self, command: CommandApdu) -> Answer:
        return Answer(ANSWER)


@contextmanager
def every_repr() -> Iterator[dict[str, list[str]]]:
    """Meanwhile, whatever functions of ours get, make and return is asked for its ``repr``. The
    pieces of secrets in it, by the name of the class."""
    found: dict[str, list[str]] = {}

    def look(frame: FrameType, event: str, result: Any) -> None:
        if event != "return" or not frame.f_globals.get("__name__", "").startswith("ccid."):
            return
        for one in (*frame.f_locals.values(), result):
            kind = type(one)
            if kind.__module__.startswith("ccid.") and not kind.__module__.endswith("_text"):
                try:
                    shown = repr(one)
                except Exception:  # it is being made
                    continue
                if pieces := told(shown):
                    found[kind.__qualname__] = pieces

    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(None)


def error_text(error: BaseException) -> str:
    """All that a program can print of an error."""
    shown = "".join(traceback.format_exception(error))
    return shown + repr(error) + repr(vars(error)) + repr(error.args)


@pytest.mark.parametrize(("name", "way"), list(zip(SECRET, cycle(WAYS), strict=False)))
def test_no_secret_is_told(
    name: str, way: tuple[ExchangeLevel, Protocol], caplog: pytest.LogCaptureFixture
) -> None:
    """In a trace, the log, a report's trace, an exception, and the ``repr`` of all objects."""
    apdu, file, notes = spelled(name, KEY), io.BytesIO(), _Notes()
    virtual = ccid.VirtualReader(Confidant(), level=way[0])
    with (
        caplog.at_level(TRAFFIC, "ccid"),
        ccid.open_reader(virtual) as reader,
        reader.slots[0].connect(way[1], auto_get_response=True) as card,
        reader.trace(file),
        reader.trace(notes),
    ):
        with every_repr() as reprs:
            assert len(card.transmit(apdu + b"\0")) >= 2
        virtual.faults.append(faults.failing(SlotError.HW_ERROR, on=PC_to_RDR_XfrBlock))
        with pytest.raises(CcidError) as failed:
            card.transmit(apdu)
        with pytest.raises(CcidError) as malformed:
            CommandApdu.parse(apdu[:4] + b"\0" + apdu[4:])
    assert reprs == {}
    assert told(file.getvalue()) == []
    assert len(caplog.records) > 2
    assert told("\n".join(logging.Formatter().format(one) for one in caplog.records)) == []
    assert told("\n".join(map(repr, caplog.records))) == []
    assert len(notes.lines) > 2
    assert told(repr(notes.lines)) == []
    assert told(error_text(failed.value)) == []
    assert told(error_text(malformed.value)) == []


@pytest.mark.parametrize(("name", "number"), [(name, n) for n, name in enumerate(SECRET)])
def test_the_command_apdu_prints_no_secret(
    name: str, number: int, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither to the screen, nor to the log, nor to the file of a trace."""
    made = ccid.VirtualReader(Confidant())
    monkeypatch.setattr(reader_choice, "virtual_infos", lambda _: [made.info])
    trace, apdu = tmp_path / "trace.pcapng", spelled(name, KEY).hex()
    status, out, err = run("--log", "--trace", str(trace), "--virtual", "apdu", apdu, "00C0000008")
    assert status == 0, err
    assert "masked" in out
    assert "XfrBlock" in err
    assert told(out) == told(err) == told(trace.read_bytes()) == []
    wrong = ["00"] if number % 2 else [apdu + "x"]  # no APDU, no hexadecimal digit
    status, out, err = run("--log", "--virtual", "apdu", apdu, *wrong)
    assert status != 0
    assert told(out) == told(err) == []


class Indiscreet(NamedTuple):
    """What the library must not make."""

    data: bytes


def test_what_tells_is_noticed() -> None:
    """The tests above can fail."""
    for shown in KEY, repr(KEY), KEY.hex(), ANSWER.hex(" ").upper(), "01:" + ANSWER.hex(":"):
        assert told(shown)
    assert told(bytes(100)) == []
    command, space = CommandApdu.parse(spelled("VERIFY", KEY)), {"__name__": "ccid.a_test"}
    Indiscreet.__module__ = "ccid.a_test"
    exec("def tell(one): return one", space)
    with every_repr() as found:
        cast(Any, space["tell"])(command)
    assert found == {}
    with every_repr() as found:
        cast(Any, space["tell"])(Indiscreet(KEY))
    assert list(found) == ["Indiscreet"]
