"""A malicious reader: each command ends in time with an error of ours, in bounded memory; another
reader is used meanwhile, and the reader itself afterwards. docs/security.md has the figures."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import ccid
from ccid import errors
from ccid.codec.messages import PC_to_RDR_IccPowerOn, PC_to_RDR_XfrBlock
from ccid.codes import ExchangeLevel
from ccid.device import first_commands
from ccid.device import reader as reader_module
from ccid.errors import CcidError, CommandCancelled
from ccid.link import inbox
from ccid.link import pipe as pipe_module
from ccid.virtual import EchoCard, VirtualReader, make_descriptor
from ccid.virtual.hostile_faults import Malice, hostile_descriptors, malicious
from ccid.virtual.usb_device import InPipe
from tests.malice import EVENTS, OK, SELECT_MF, place, suffer, suffer_descriptor

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
LIMIT_S = 0.1
"""Of a command here."""
MOST_BYTES = 50 << 20
DESCRIPTORS = dict(hostile_descriptors(make_descriptor(ExchangeLevel.SHORT_APDU)))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_module, "SLICE_MS", 20)
    monkeypatch.setattr(pipe_module, "ABORT_S", 0.1)
    monkeypatch.setattr(inbox, "REST_MS", 100)
    monkeypatch.setattr(first_commands, "WAKING_S", 0.1)
    monkeypatch.setattr(reader_module, "FAREWELL_S", 0.1)
    monkeypatch.setattr("ccid.link.slot_commands.SlotCommands.status_timeout_s", 0.05)
    monkeypatch.setattr("ccid.link.slot_commands.STATUS_S", 0.1)


def documented() -> dict[str, tuple[str, str]]:
    """The error and the state afterwards of each kind, in docs/security.md."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|(?:[^|]*\|){3} ([^|]+) \|$",
                      DOCUMENT.read_text("utf-8"), re.MULTILINE)  # fmt: skip
    return {kind: (error.strip("`"), afterwards) for kind, error, afterwards in rows}


@pytest.mark.parametrize("kind", Malice, ids=lambda kind: kind.name)
def test_a_command_ends_and_nobody_else_is_harmed(kind: Malice) -> None:
    error, _ = documented()[kind.value]
    limit_s = LIMIT_S if error == "TransportTimeout" else 20.0
    outcome = suffer(kind, max_command_s=limit_s, flood_s=0.05)
    assert outcome.error == "" or issubclass(getattr(errors, outcome.error), CcidError)
    assert outcome.seconds < limit_s + 3
    assert outcome.grown < MOST_BYTES
    assert outcome.neighbour_s is not None
    assert outcome.neighbour_s < 3
    assert outcome.afterwards != "no"
    assert documented()[kind.value] == (outcome.error or "no error", outcome.afterwards)


def test_the_document_has_each_kind() -> None:
    assert {kind.value for kind in Malice} < set(documented())


@pytest.mark.parametrize("kind", [k for k in Malice if k not in EVENTS], ids=lambda kind: kind.name)
def test_opening_and_closing_end(kind: Malice) -> None:
    """Also with a reader that is malicious from the first command on, or at the last."""
    level, _ = place(kind)
    virtual = VirtualReader(EchoCard(), level=level)
    virtual.faults.append(malicious(kind))
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(ccid.open_reader(virtual, max_command_s=LIMIT_S))
        except CcidError:
            virtual.faults.clear()
            reader = stack.enter_context(ccid.open_reader(virtual, max_command_s=LIMIT_S))
            reader.slots[0].connect()
            virtual.faults.append(malicious(kind))
        reader.close()
    virtual.faults.clear()
    with ccid.open_reader(virtual) as again:
        assert again.slots[0].connect().transmit(bytes.fromhex("0010000000"))[-2:] == OK


@pytest.mark.parametrize(
    "kind", [Malice.TIME_EXTENSIONS, Malice.STALE_REPLIES, Malice.T1_WTX, Malice.NOISE],
    ids=lambda kind: kind.name,
)  # fmt: skip
def test_a_command_to_a_malicious_reader_is_cancelled(kind: Malice) -> None:
    level, protocol = place(kind)
    virtual = VirtualReader(level=level)
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect(protocol)
        virtual.faults.append(malicious(kind))
        threading.Timer(0.05, reader.slots[0].cancel).start()
        with pytest.raises(CommandCancelled):
            card.transmit(SELECT_MF)
        virtual.faults.clear()


def test_a_card_that_is_malicious_once() -> None:
    """``on``, ``after`` and ``times`` are as for other faults."""
    virtual = VirtualReader(EchoCard())
    fault = malicious(Malice.BUSY, on=PC_to_RDR_XfrBlock, times=1, after=1)
    virtual.faults.append(fault)
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        apdu = bytes.fromhex("0010000000")
        assert card.transmit(apdu) is not None
        with pytest.raises(CcidError):
            card.transmit(apdu)
        assert card.transmit(apdu) is not None
    assert malicious(Malice.T1_WTX, on=PC_to_RDR_IccPowerOn).on is PC_to_RDR_XfrBlock


def test_a_notification_of_256_slots_tells_of_those_that_there_are() -> None:
    virtual = VirtualReader([EchoCard(), None], slots=2)
    seen: Counter[int] = Counter()
    with ccid.open_reader(virtual) as reader:
        end = reader.listen(lambda slots: seen.update(change.slot for change in slots or ()))
        virtual.faults.append(malicious(Malice.NOTIFICATIONS_OF_OTHER_SLOTS))
        for _ in range(2000):
            with suppress(CcidError):
                reader.slots[0].status()
            if seen[0] > 3:
                break
        end()
        assert set(seen) == {0, 1}


@pytest.mark.parametrize("name", DESCRIPTORS)
@pytest.mark.parametrize("changes", [False, True], ids=["from the start", "after opening"])
def test_a_descriptor_that_lies(name: str, changes: bool) -> None:
    outcome = suffer_descriptor(DESCRIPTORS[name], changes=changes)
    assert outcome.error == "" or issubclass(getattr(errors, outcome.error), CcidError)
    assert outcome.seconds < 4
    assert outcome.grown < MOST_BYTES
    assert outcome.neighbour_s is not None
    assert outcome.afterwards == "opened anew"


def test_each_field_is_tried() -> None:
    """With 0, 1, and all ones, unless an honest reader has that value."""
    named = {name.partition(" ")[0] for name in DESCRIPTORS}
    assert len(named) == 20
    assert {name for name in DESCRIPTORS if name.startswith("dwFeatures")} == {
        "dwFeatures = 0x0", "dwFeatures = 0x1", "dwFeatures = 0xffffffff",
    }  # fmt: skip


def test_an_endless_pipe_says_one_message_after_the_other() -> None:
    pipe = InPipe(64)
    taken = []

    def messages() -> Iterator[tuple[bytes, float]]:
        for number in range(1000):
            taken.append(number)
            yield bytes((number % 256,)), number * 0.5

    pipe.go_on(messages())
    assert pipe.is_endless
    assert not pipe.is_silent
    assert pipe.next_due() == 0.0
    assert pipe.pull(64, 0.0) == (b"\0", True)
    assert pipe.pull(64, 0.0) is None
    assert pipe.next_due() == 0.5
    assert pipe.pull(64, 0.5) == (b"\1", True)
    assert taken == [0, 1]
    pipe.push(b"honest", 0.7)
    assert pipe.pull(64, 0.8) == (b"honest", True)
    pipe.stop()
    assert pipe.is_silent
    pipe.push(b"honest", 0.9)
    pipe.stop()
    assert pipe.pull(64, 0.9) == (b"honest", True)
    assert pipe.next_due() is None
