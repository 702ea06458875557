"""Wrong arguments (no APDU, a number too large for its field, no time) raise an error that says so,
and change nothing. Bytes and numbers of a field raise an error of this library; times raise
ValueError or TypeError."""

from __future__ import annotations

import array
import math
from collections.abc import Callable
from typing import Any

import pytest

import ccid
from ccid.codec.messages import PinVerification, ProtocolDataT1
from ccid.codes import ExchangeLevel, InterfaceProtocol, Protocol
from ccid.errors import CcidError, InvalidApdu, MalformedMessage
from ccid.session.exchange.one_block import as_it_came
from ccid.transport import OUT_CAPACITY
from ccid.virtual import EchoCard, make_descriptor

ANSWER = bytes.fromhex("000102039000")
APDU = bytes.fromhex("0010000004")


def of(level: ExchangeLevel, slots: int = 1, **fields: Any) -> ccid.VirtualReader:
    descriptor = make_descriptor(level, slots, **fields)
    return ccid.VirtualReader([EchoCard() for _ in range(slots)], descriptor=descriptor)


def iccd(version: InterfaceProtocol, atr: str) -> ccid.VirtualReader:
    return ccid.VirtualReader(EchoCard(bytes.fromhex(atr)), bInterfaceProtocol=version)


READERS: dict[str, tuple[Callable[[], ccid.VirtualReader], Protocol | None, bool]] = {
    "character T=0": (lambda: of(ExchangeLevel.CHARACTER), Protocol.T0, False),
    "character T=1": (lambda: of(ExchangeLevel.CHARACTER), Protocol.T1, False),
    "TPDU T=0": (lambda: of(ExchangeLevel.TPDU), Protocol.T0, False),
    "TPDU T=0 mapped": (lambda: of(ExchangeLevel.TPDU), Protocol.T0, True),
    "TPDU T=1": (lambda: of(ExchangeLevel.TPDU), Protocol.T1, False),
    "short": (lambda: of(ExchangeLevel.SHORT_APDU), None, False),
    "extended": (lambda: of(ExchangeLevel.EXTENDED_APDU), None, False),
    "several": (lambda: of(ExchangeLevel.SHORT_APDU, 2, bMaxCCIDBusySlots=2), None, False),
    "ICCD-A": (lambda: iccd(InterfaceProtocol.ICCD_A, "3B 15 96 63 63 69 64 21"), None, False),
    "ICCD-B": (
        lambda: iccd(InterfaceProtocol.ICCD_B, "3B 95 96 81 31 FE 45 63 63 69 64 21 24"),
        None,
        False,
    ),
}


def released() -> memoryview:
    view = memoryview(bytearray(APDU))
    view.release()
    return view


NO_BYTES = [
    None,
    "00A40400",
    5,
    10**20,
    [0, 16, 0, 0],
    [0, 16, 0, 300],
    object(),
    memoryview(array.array("I", [1, 2, 3, 4])),
    memoryview(array.array("b", [0, 16, 0, 0])),
    memoryview(APDU[:4] * 2).cast("B", [2, 4]),
    released(),
]
NUMBERS: list[Any] = [
    -1,
    1 << 8,
    1 << 16,
    1 << 32,
    1 << 64,
    -(1 << 64),
    None,
    "1",
    b"1",
    1.5,
    math.nan,
    [],
]
NO_TIMES = [-1, -math.inf, math.nan, None, "1", b"1", [], object()]


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_apdu(kind: str) -> None:
    make, protocol, mapped = READERS[kind]
    with ccid.open_reader(make()) as reader:
        slot = reader.slots[0]
        card = slot.connect(protocol, auto_get_response=mapped)
        for wrong in NO_BYTES:
            for call in (
                card.transmit,
                lambda data: slot.commands.xfr_block(data, timeout_s=1),
            ):
                with pytest.raises(InvalidApdu):
                    call(wrong)  # type: ignore[arg-type]
            assert reader.pipe.busy_slot == -1
        for right in bytearray(APDU), memoryview(APDU * 2)[: len(APDU)], array.array("B", APDU):
            assert card.transmit(right) == ANSWER  # type: ignore[arg-type]
        spread = bytes(byte for one in APDU for byte in (one, 0xEE))
        assert card.transmit(memoryview(spread)[::2]) == ANSWER


@pytest.mark.parametrize("level", [ExchangeLevel.SHORT_APDU, ExchangeLevel.TPDU])
@pytest.mark.parametrize("length", [65545, 65557, 70000, 200000])
def test_an_apdu_longer_than_any(level: ExchangeLevel, length: int) -> None:
    """Whatever the value of dwMaxCCIDMessageLength."""
    virtual = of(level, dwMaxCCIDMessageLength=0xFFFFFFFF)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect(Protocol.T0) as card:
        with pytest.raises(CcidError):
            card.transmit(bytes(length))
        quick = reader.slots[0].commands.apdu_way(lambda _: 1.0, as_it_came).transmit
        with pytest.raises(MalformedMessage):
            quick(bytes(max(length, OUT_CAPACITY - 9)))
        assert reader.pipe.busy_slot == -1
        assert card.transmit(APDU) == ANSWER


def pin(**fields: Any) -> PinVerification:
    usual = {
        "bTimeOut": 0,
        "bmFormatString": 0x82,
        "bmPINBlockString": 0,
        "bmPINLengthFormat": 0,
        "wPINMaxExtraDigit": 0x0408,
        "bEntryValidationCondition": 2,
        "bNumberMessage": 0,
        "wLangId": 0x0409,
        "bMsgIndex": 0,
    }
    return PinVerification(**(usual | fields))


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_number_of_a_field(kind: str) -> None:
    make, protocol, _ = READERS[kind]
    with ccid.open_reader(make()) as reader:
        slot = reader.slots[0]
        slot.connect(protocol)
        commands: Any = slot.commands
        for n in NUMBERS:
            for call in (
                lambda n: commands.xfr_block(APDU, timeout_s=1, bBWI=n),
                lambda n: commands.xfr_block(APDU, timeout_s=1, wLevelParameter=n),
                commands.icc_clock,
                commands.mechanical,
                lambda n: commands.t0_apdu(bClassGetResponse=n),
                lambda n: commands.t0_apdu(bClassEnvelope=n),
                lambda n: commands.set_data_rate_and_clock_frequency(n, 1),
                lambda n: commands.set_data_rate_and_clock_frequency(1, n),
                lambda n: commands.secure(n, b"", timeout_s=1),
                lambda n: commands.secure(0, n, timeout_s=1),
                commands.set_parameters,
                lambda n: commands.set_parameters(ProtocolDataT1(bmFindexDindex=n)),
                lambda n: slot.verify_pin(n),
                lambda n: slot.verify_pin(pin(bTimeOut=n)),
                lambda n: slot.verify_pin(pin(abPINApdu=n)),
                lambda n: slot.control(n, b""),
                commands.escape,
            ):
                try:
                    call(n)
                except CcidError:
                    continue
                assert isinstance(n, int | bytes | type(None)), "what fits is taken, at most"


@pytest.mark.parametrize("wrong", NO_TIMES)
@pytest.mark.parametrize("kind", ["short", "several", "ICCD-A", "ICCD-B"])
def test_what_is_no_time(kind: str, wrong: Any) -> None:
    make, _, _ = READERS[kind]
    with ccid.open_reader(make()) as reader:
        slot = reader.slots[0]
        slot.connect()
        with pytest.raises((ValueError, TypeError), match="timeout_s"):
            slot.commands.xfr_block(APDU, timeout_s=wrong)
        if kind != "ICCD-B":  # nothing is under way: the call returns at once
            with pytest.raises((ValueError, TypeError), match="at_least_s"):
                slot.commands.slot_status(wrong)


@pytest.mark.parametrize("wrong", [*(t for t in NO_TIMES if t is not None), 0, 0.0])
def test_what_is_no_limit_of_a_command(wrong: Any) -> None:
    virtual = of(ExchangeLevel.SHORT_APDU)
    with pytest.raises((ValueError, TypeError), match="max_command_s"):
        ccid.open_reader(virtual, max_command_s=wrong)
    ccid.open_reader(virtual).close()  # the reader is free


@pytest.mark.parametrize("limit", [math.inf, 1e300, 10**400, None])
def test_times_without_end(limit: Any) -> None:
    with ccid.open_reader(of(ExchangeLevel.SHORT_APDU), max_command_s=limit) as reader:
        card = reader.slots[0].connect()
        assert card.transmit(APDU) == ANSWER
        if limit is not None:
            commands = reader.slots[0].commands
            assert commands.xfr_block(APDU, timeout_s=limit) == (ANSWER, 0)
