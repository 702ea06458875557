"""Power-ons that fail at first, or return a broken ATR: the card is powered off and on once more,
and no card keeps its power after a connection that failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

import ccid
from ccid.codec.messages import (
    PC_to_RDR_Escape,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_SetParameters,
    RDR_to_PC_NotifySlotChange,
)
from ccid.codes import ExchangeLevel, Features, IccStatus, PowerSelect, SlotError, VoltageSupport
from ccid.errors import (
    CardAbsent,
    CardMute,
    CardRemoved,
    CcidError,
    CommandFailed,
    MalformedAtr,
    MalformedMessage,
    ProtocolError,
    SlotBusy,
    TransportStall,
    TransportTimeout,
)
from ccid.link import slot_commands as commands
from ccid.session import activation
from ccid.session.negotiation import power_selects
from ccid.virtual import Application, EchoCard, faults, make_descriptor
from ccid.virtual.cards import Contact
from ccid.virtual.cards.contact import ContactOptions
from ccid.virtual.cards.pps_card import Pps
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.faults import Fault
from ccid.virtual.models import make
from tests.vm.differential import scenario_parts as atrs

ON, OFF = PC_to_RDR_IccPowerOn, PC_to_RDR_IccPowerOff
CASE_1 = bytes.fromhex("00400000")
AUTOMATIC = Features.AUTO_VOLTAGE | Features.AUTO_PPS
CARDS_FAULT = [
    SlotError.ICC_PROTOCOL_NOT_SUPPORTED,
    SlotError.ICC_CLASS_NOT_SUPPORTED,
    SlotError.BAD_ATR_TCK,
    SlotError.BAD_ATR_TS,
    SlotError.HW_ERROR,
    SlotError.XFR_OVERRUN,
    SlotError.XFR_PARITY_ERROR,
    SlotError.ICC_MUTE,
    0x81,  # an error of the vendor's own
    0x00,  # no reason
]


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "REST_S", 0.0)


@dataclass
class Bench:
    """A reader, and the power commands that it got."""

    virtual: ccid.VirtualReader
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        def note(_function: CcidFunction, command: bytes, said: list[Any]) -> list[Any]:
            if command[0] == ON.bMessageType:
                self.seen.append(f"on {command[7]}")
            elif command[0] == OFF.bMessageType:
                self.seen.append("off")
            return said

        self.virtual.faults.append(Fault(note, times=None))

    @property
    def powered(self) -> bool:
        return self.virtual.functions[0].slots[0].powered

    def strike(self, *struck: Fault) -> None:
        self.virtual.faults.extend(struck)

    def connect(self, **opening: Any) -> None:
        """Connect and exchange an APDU; records the commands until then."""
        with ccid.open_reader(self.virtual, **opening) as reader:
            with reader.slots[0].connect() as card:
                seen = list(self.seen)
                assert card.atr.raw == EchoCard.atr
                assert card.transmit(CASE_1) == b"\x90\x00"
        self.seen[:] = seen

    def fails(self, kind: type[CcidError], **opening: Any) -> CcidError:
        """Connect, which must fail: returns the error, and records the commands until then."""
        with ccid.open_reader(self.virtual, **opening) as reader:
            with pytest.raises(CcidError) as raised:
                reader.slots[0].connect()
            assert type(raised.value) is kind
            assert not self.powered
            assert reader.slots[0].card is None
            seen = list(self.seen)
        self.seen[:] = seen
        return raised.value


def bench(
    features: int = AUTOMATIC,
    card: Application | Contact | None = None,
    level: ExchangeLevel = ExchangeLevel.SHORT_APDU,
    **fields: int,
) -> Bench:
    descriptor = make_descriptor(level, dwFeatures=features | level, **fields)
    return Bench(ccid.VirtualReader(card or EchoCard(), descriptor=descriptor))


def no_voltage_of_its_own(bVoltageSupport: int = 7) -> Bench:
    return bench(Features.AUTO_PPS, bVoltageSupport=bVoltageSupport)


def for_5_v_alone() -> EchoCard:
    card = EchoCard()
    card.voltages = VoltageSupport.V5_0
    return card


def failing(bError: int, **when: Any) -> Fault:
    return faults.failing(bError, IccStatus.INACTIVE, on=ON, **when)


# The first power-on fails ---------------------------------------------------------------------


@pytest.mark.parametrize("bError", CARDS_FAULT)
@pytest.mark.parametrize("icc", [IccStatus.INACTIVE, IccStatus.ACTIVE])
@pytest.mark.parametrize("features", [AUTOMATIC, AUTOMATIC | Features.AUTO_ACTIVATION])
def test_a_reader_that_chooses_the_voltage(bError: int, icc: IccStatus, features: int) -> None:
    one = bench(features)
    one.strike(faults.failing(bError, icc, on=ON))
    one.connect()
    assert one.seen == ["on 0", "off", "on 0"]


@pytest.mark.parametrize("bError", CARDS_FAULT)
def test_a_reader_that_leaves_the_voltage_to_the_host(bError: int) -> None:
    one = no_voltage_of_its_own()
    one.strike(failing(bError))
    one.connect()
    assert one.seen == ["on 1", "off", "on 3"], "the next voltage is the second try"


@pytest.mark.parametrize("bError", CARDS_FAULT)
def test_one_voltage(bError: int) -> None:
    one = no_voltage_of_its_own(bVoltageSupport=2)
    one.strike(failing(bError))
    one.connect()
    assert one.seen == ["on 2", "off", "on 2"]


def test_a_card_of_one_voltage_gets_that_once_more() -> None:
    one = bench(Features.AUTO_PPS, for_5_v_alone(), bVoltageSupport=7)
    one.strike(failing(SlotError.ICC_MUTE))
    one.connect()
    assert one.seen == ["on 1", "off", "on 3", "off", "on 2", "off", "on 1"]


def test_not_at_a_voltage_that_the_reader_refused() -> None:
    one = bench(Features.AUTO_PPS, for_5_v_alone(), bVoltageSupport=7)
    one.strike(failing(7), failing(SlotError.ICC_MUTE, after=1))
    one.connect(first_voltage=PowerSelect.AUTOMATIC)
    assert one.seen[-1] == "on 1"
    assert [word for word in one.seen if word != "off"] == ["on 0", "on 1", "on 3", "on 2", "on 1"]


def test_a_stall() -> None:
    one = bench()
    one.strike(faults.stall_in(on=ON))
    one.connect()
    assert one.seen == ["on 0", "off", "on 0"]


def test_a_power_off_that_fails_too() -> None:
    one = bench()
    one.strike(failing(SlotError.ICC_MUTE), faults.failing(SlotError.HW_ERROR, on=OFF))
    one.connect()


def test_a_reader_without_detector() -> None:
    """The reader detects a card by power only."""
    reader = make("08e6:3480")
    one = Bench(reader)
    one.strike(failing(SlotError.ICC_MUTE))
    with ccid.open_reader(reader) as opened:
        assert opened.slots[0].quirks.presence_by_power
        with opened.slots[0].connect():
            assert opened.slots[0].status() is IccStatus.ACTIVE


@pytest.mark.parametrize("version", [1, 2])
def test_an_iccd_device(version: int) -> None:
    virtual = ccid.VirtualReader(EchoCard(), bInterfaceProtocol=version)
    virtual.functions[0].slots[0].mute_for = 1
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.transmit(CASE_1) == b"\x90\x00"
    assert virtual.functions[0].slots[0].power_ons == 2


def test_a_reset() -> None:
    """A warm reset fails, and a cold reset follows."""
    one = bench()
    with ccid.open_reader(one.virtual) as reader, reader.slots[0].connect() as card:
        one.seen.clear()
        one.strike(failing(SlotError.ICC_MUTE))
        assert card.reset().raw == EchoCard.atr
        assert one.seen == ["on 0", "off", "on 0"]
        assert card.transmit(CASE_1) == b"\x90\x00"


def test_between_two_speeds() -> None:
    """The reset after a failed PPS is such a power-on as well."""
    card = Contact(EchoCard(atrs.FAST_T1), ContactOptions(pps=Pps.MUTE))
    features = Features.AUTO_VOLTAGE | Features.AUTO_CLOCK | Features.AUTO_BAUD_RATE
    quick = {"dwDefaultClock": 60_000, "dwMaximumClock": 60_000, "dwMaxDataRate": 5_000_000}
    one = bench(features, card, ExchangeLevel.TPDU, **quick)
    one.strike(failing(SlotError.ICC_MUTE, after=1))
    with ccid.open_reader(one.virtual) as reader, reader.slots[0].connect() as connected:
        assert connected.fidi == 0x11
        assert connected.transmit(CASE_1) == b"\x90\x00"


def test_a_card_taken_for_another_voltage() -> None:
    """The ATR names a class that the host must use, and that fails at first."""
    low = atrs.atr_of("85", "81 B1 FE 45 1F 06", tck=True)
    one = bench(Features.AUTO_PPS, EchoCard(low), bVoltageSupport=7)
    one.strike(failing(SlotError.ICC_MUTE, after=1))
    with ccid.open_reader(one.virtual) as reader, reader.slots[0].connect():
        assert one.seen == ["on 1", "off", "on 3", "off", "on 3"]


# No second power-on ---------------------------------------------------------------------------


@pytest.mark.parametrize("bError", [SlotError.ICC_MUTE, SlotError.HW_ERROR, 0x00])
def test_no_card(bError: int) -> None:
    one = bench()
    one.strike(faults.failing(bError, IccStatus.ABSENT, on=ON, times=None))
    one.fails(CardAbsent)
    assert one.seen == ["on 0", "off"]


def said_without_saying_failed(icc: IccStatus, **when: Any) -> Fault:
    """The reply says success, has no ATR, and says that the card has no power."""
    return Fault(
        lambda _f, _c, said: [
            replace(s, message=s.message[:1] + bytes(4) + s.message[5:7] + bytes((icc, 0, 0)))
            for s in said
        ],
        on=ON,
        **when,
    )


def test_no_card_and_no_failure() -> None:
    one = bench()
    one.strike(said_without_saying_failed(IccStatus.ABSENT, times=None))
    one.fails(CardAbsent)
    assert one.seen == ["on 0", "off"]


def test_no_power_and_no_failure() -> None:
    one = bench()
    one.strike(said_without_saying_failed(IccStatus.INACTIVE))
    one.connect()
    assert one.seen == ["on 0", "off", "on 0"]


def test_a_card_that_is_gone_at_the_second_try() -> None:
    one = bench()
    one.strike(
        failing(SlotError.ICC_MUTE), faults.failing(0xFE, IccStatus.ABSENT, on=ON, times=None)
    )
    one.virtual.faults[-1].after = 1
    error = one.fails(CardAbsent)
    assert isinstance(error.__context__, CardMute)
    assert one.seen == ["on 0", "off", "on 0", "off"]


def said_meanwhile(*presences: bool) -> Fault:
    """The first power-on fails; the reader has sent these notifications before."""

    def notify(function: CcidFunction, command: bytes, said: list[Any]) -> list[Any]:
        assert function.interrupt_in is not None
        for present in presences:
            message = RDR_to_PC_NotifySlotChange.of([(present, True)]).build()
            function.interrupt_in.push(message, 0.0)
        return failing(SlotError.ICC_MUTE).bend(function, command, said)

    return Fault(notify, on=ON)


def test_a_card_that_was_taken_out_meanwhile() -> None:
    one = bench()
    one.strike(said_meanwhile(False))
    error = one.fails(CardRemoved)
    assert isinstance(error.__context__, CardMute)
    assert one.seen == ["on 0", "off", "off"]


def test_a_card_whose_contacts_bounce() -> None:
    """The reader reports the card as removed and inserted again."""
    one = bench()
    one.strike(said_meanwhile(False, True))
    one.connect()
    assert one.seen == ["on 0", "off", "on 0"]


def test_a_card_that_is_reset_must_be_the_same() -> None:
    one = bench()
    with ccid.open_reader(one.virtual) as reader, reader.slots[0].connect() as card:
        one.strike(said_meanwhile(False, True))
        with pytest.raises(CardRemoved):
            card.reset()
        with pytest.raises(CardRemoved):
            card.transmit(CASE_1)


def test_a_field_that_the_reader_finds_wrong() -> None:
    one = bench()
    one.strike(failing(7, times=None))
    one.fails(CommandFailed)
    assert one.seen == ["on 0", "off"]


def test_a_reader_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader had its minute; the card is not the reason."""
    monkeypatch.setattr(commands, "ACTIVATION_S", 0.05)
    one = bench()
    one.strike(faults.silence(on=ON, times=None))
    one.fails(TransportTimeout)
    assert one.seen == ["on 0", "off"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(faults.reserved_status, MalformedMessage), (faults.wrong_type, ProtocolError)],
)
def test_a_reader_that_says_nonsense(fault: Callable[..., Fault], kind: type[CcidError]) -> None:
    one = bench()
    one.strike(fault(on=ON))
    one.fails(kind)
    assert one.seen == ["on 0", "off"]


# A reader that is busy by itself --------------------------------------------------------------


@pytest.mark.parametrize("bError", [SlotError.BUSY_WITH_AUTO_SEQUENCE, SlotError.CMD_SLOT_BUSY])
def test_a_reader_that_is_busy_with_the_card(bError: int) -> None:
    one = bench(AUTOMATIC | Features.AUTO_ACTIVATION)
    one.strike(failing(bError, times=3))
    one.connect()
    assert one.seen == ["on 0"] * 4


def test_a_reader_that_stays_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "BUSY_S", 0.05)
    one = no_voltage_of_its_own()
    one.strike(failing(SlotError.BUSY_WITH_AUTO_SEQUENCE, times=None))
    one.fails(SlotBusy)
    assert set(one.seen[:-1]) == {"on 1"}, "another voltage is no way out"


# Both power-ons fail --------------------------------------------------------------------------


def test_a_dead_card() -> None:
    one = bench()
    one.virtual.functions[0].slots[0].mute = True
    error = one.fails(CardMute)
    assert one.seen == ["on 0", "off", "on 0", "off"]
    assert isinstance(error.__context__, CardMute)


def test_a_dead_card_at_all_voltages() -> None:
    one = no_voltage_of_its_own()
    one.virtual.functions[0].slots[0].mute = True
    one.fails(CardMute)
    assert one.seen == ["on 1", "off", "on 3", "off", "on 2", "off", "on 1", "off"]


@pytest.mark.parametrize(
    ("bErrors", "told"),
    [
        ((0xF7, 0xFE), 0xF7),
        ((0xFE, 0xF7), 0xF7),
        ((0xFB, 0xFC), 0xFB),
        ((0xFE, 0x07), 0xFE),
        ((0xFE, 0x00), 0x00),
    ],
)
def test_the_error_that_tells_most_is_raised(bErrors: tuple[int, int], told: int) -> None:
    one = bench()
    one.strike(failing(bErrors[0]), failing(bErrors[1], after=1))
    error = one.fails(CardMute if told == 0xFE else CommandFailed)
    assert error.bError == told
    other = error.__context__
    while other is not None and getattr(other, "bError", None) == told:
        other = other.__context__
    assert isinstance(other, CcidError)
    assert {told, other.bError} == set(bErrors)


@pytest.mark.parametrize(
    ("bErrors", "told"), [((7, 0xFE, 0xF5), 0xF5), ((7, 7, 0xFE), 0xFE), ((0xFE, 0xFB, 7), 0xFB)]
)
def test_of_all_voltages_too(bErrors: tuple[int, ...], told: int) -> None:
    one = no_voltage_of_its_own()
    for n, bError in enumerate(bErrors):
        one.strike(failing(bError, after=n))
    one.strike(failing(SlotError.ICC_MUTE, after=3, times=None))
    assert one.fails(CardMute if told == 0xFE else CommandFailed).bError == told


def test_a_stall_that_lasts() -> None:
    one = bench()
    one.strike(faults.stall_in(on=ON, times=None))
    one.fails(TransportStall)
    assert one.seen == ["on 0", "off", "on 0", "off"]


def test_a_reader_that_breaks_at_the_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ACTIVATION_S", 0.05)
    one = bench()
    one.strike(failing(SlotError.ICC_MUTE), faults.silence(on=ON, after=1))
    error = one.fails(TransportTimeout)
    assert isinstance(error.__context__, CardMute)


def test_an_escape_that_fails_does_not_hide_why_it_was_sent() -> None:
    reader = make("08e6:4433")
    one = Bench(reader)
    one.strike(
        failing(0xBB, times=None), faults.refused_as_unknown(on=PC_to_RDR_Escape, times=None)
    )
    with ccid.open_reader(reader) as opened, pytest.raises(CommandFailed) as raised:
        opened.slots[0].connect()
    assert raised.value.bError == 0xBB


# Broken ATRs ----------------------------------------------------------------------------------

BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "no ATR": lambda atr: b"",
    "one byte": lambda atr: atr[:1],
    "wrong TS": lambda atr: b"\x03" + atr[1:],
    "cut in the interface bytes": lambda atr: atr[:3],
    "cut in the historical bytes": lambda atr: atr[:-3],
    "without TCK": lambda atr: atr[:-1],
    "wrong TCK": lambda atr: atr[:-1] + bytes((atr[-1] ^ 1,)),
    "wrong historical byte": lambda atr: atr[:-2] + bytes((atr[-2] ^ 0x80, atr[-1])),
}


def spoilt(name: str, **when: Any) -> Fault:
    return faults.altered(BROKEN[name], on=ON, **when)


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("features", [AUTOMATIC, Features.AUTO_PPS])
def test_a_broken_atr_is_asked_for_once_more(name: str, features: int) -> None:
    one = bench(features, bVoltageSupport=1)
    one.strike(spoilt(name))
    one.connect()
    select = "on 0" if features == AUTOMATIC else "on 1"
    assert one.seen == [select, "off", select]


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "no ATR"])
def test_at_the_voltage_where_it_came(name: str) -> None:
    one = no_voltage_of_its_own()
    one.strike(failing(SlotError.ICC_MUTE), spoilt(name, after=1))
    one.connect()
    assert one.seen == ["on 1", "off", "on 3", "off", "on 3"]


@pytest.mark.parametrize("name", ["one byte", "wrong TS", "cut in the interface bytes"])
def test_one_that_cannot_be_read_twice(name: str) -> None:
    one = bench()
    one.strike(spoilt(name, times=None))
    error = one.fails(MalformedAtr)
    assert one.seen == ["on 0", "off", "on 0", "off"]
    assert "slot 0" in str(error)
    assert (error.reader, error.slot) == ("Virtual Reader", 0)


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "no ATR"])
def test_one_that_came_is_told_of_although_no_more_came(name: str) -> None:
    one = bench()
    one.strike(spoilt(name), failing(SlotError.ICC_MUTE, after=1, times=None))
    error = one.fails(MalformedAtr)
    assert isinstance(error.__context__, CardMute)
    assert one.seen == ["on 0", "off", "on 0", "off"]


def test_one_that_comes_after_all_is_told_of() -> None:
    one = bench()
    one.strike(failing(SlotError.ICC_MUTE), spoilt("wrong TS", after=1, times=None))
    error = one.fails(MalformedAtr)
    assert "TS is 0x03" in str(error)


def test_a_card_without_atr() -> None:
    """A memory card is active, and does not answer to reset."""
    one = bench()
    one.strike(spoilt("no ATR", times=None))
    error = one.fails(CardMute)
    assert "memory card" in str(error)
    assert one.seen == ["on 0", "off", "on 0", "off"]


@pytest.mark.parametrize("name", ["without TCK", "wrong TCK", "cut in the historical bytes"])
def test_a_card_whose_atr_is_always_so_is_used(name: str) -> None:
    """The card costs one reset."""
    one = bench()
    one.strike(spoilt(name, times=None))
    with ccid.open_reader(one.virtual) as reader, reader.slots[0].connect() as card:
        assert card.atr.warnings
        assert card.transmit(CASE_1) == b"\x90\x00"
        assert one.seen == ["on 0", "off", "on 0"]


# Power after a failure ------------------------------------------------------------------------


def test_no_power_after_its_time_is_over() -> None:
    one = bench()
    one.strike(faults.silence(on=PC_to_RDR_SetParameters, times=None))
    began = time.monotonic()
    one.fails(TransportTimeout, max_command_s=0.2)
    assert one.seen == ["on 0", "off"]
    assert time.monotonic() - began < 3


def test_no_power_after_a_power_up_in_two_steps_that_failed() -> None:
    """The ATR came in a reply that cannot be used: the card has power."""
    one = bench()
    one.strike(faults.reserved_status(on=ON))
    with ccid.open_reader(one.virtual) as reader:
        with pytest.raises(MalformedMessage):
            reader.slots[0].activation().power_up()
        assert not one.powered


# Random replies -------------------------------------------------------------------------------


def anything(random: Random) -> Fault:
    """Half of the replies to power commands are changed at random."""

    def bend(_function: CcidFunction, command: bytes, said: list[Any]) -> list[Any]:
        if command[0] not in (ON.bMessageType, OFF.bMessageType) or random.random() < 0.5:
            return said
        message = said[-1].message
        head, data = bytearray(message[:10]), message[10:]
        match random.randrange(5):
            case 0:
                head[7] = random.choice((0x01, 0x02, 0x40, 0x41, 0x42, 0xC0))
            case 1:
                head[7], head[8], data = 0x41, random.choice((7, 0, *SlotError)), b""
            case 2:
                data = data[: random.randrange(len(data) + 1)]
            case 3:
                data = random.randbytes(random.choice((1, 2, 12, 33, 34)))
            case 4:
                head[random.choice((0, 8, 9))] = random.randrange(256)
        head[1:5] = len(data).to_bytes(4, "little")
        return [replace(said[-1], message=bytes(head) + data)]

    return Fault(bend, times=None)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_comes(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """The result is an error of this library or a card; the number of power-ons is bounded; a card
    that is not connected has no power; and afterwards the reader works again."""
    monkeypatch.setattr(activation, "BUSY_S", 0.0)
    random = Random(seed)
    voltages = random.choice((0, 1, 2, 7))
    one = bench(AUTOMATIC if not voltages else Features.AUTO_PPS, bVoltageSupport=voltages or 1)
    with ccid.open_reader(one.virtual, max_command_s=5.0) as reader:
        one.strike(anything(random))
        for _ in range(4):
            one.seen.clear()
            try:
                with reader.slots[0].connect() as card:
                    assert card.transmit(CASE_1) == b"\x90\x00"
            except CcidError:
                pass
            tries = len(power_selects(reader.descriptor)) + 1
            assert sum(word != "off" for word in one.seen) <= tries + 2, "and a better voltage"
            assert one.seen[-1] == "off"
        one.virtual.faults.pop()
        with reader.slots[0].connect() as card:
            assert card.transmit(CASE_1) == b"\x90\x00"
