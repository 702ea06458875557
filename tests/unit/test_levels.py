"""Every level of exchange with every protocol, end to end: our driver on virtual readers, whose
firmware and cards were written from the standards independently."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_GetParameters, PC_to_RDR_XfrBlock
from ccid.codes import ExchangeLevel, Features, IccStatus, Protocol, SlotError
from ccid.errors import (
    CardMute,
    CardRemoved,
    CcidError,
    CommandFailed,
    ProtocolError,
    ReaderUnsupported,
    TransportStall,
    UnsupportedByReader,
)
from ccid.iso7816.apdu import CommandApdu
from ccid.masking.exchange_watch import Framing
from ccid.virtual import Answer, Application, EchoCard, faults, make_descriptor
from ccid.virtual.cards import Contact, contact_faults
from ccid.virtual.cards.contact import ContactOptions
from ccid.virtual.cards.pps_card import Pps
from ccid.virtual.cards.t0_card import T0Options
from ccid.virtual.cards.t1_blocks import Check
from ccid.virtual.cards.t1_card import T1Options
from tests.vm.differential import scenario_parts as atrs

MANUAL = Features.AUTO_VOLTAGE | Features.AUTO_CLOCK | Features.AUTO_BAUD_RATE
WAYS = [
    (level, protocol, automatic)
    for level in ExchangeLevel
    for protocol in Protocol
    for automatic in (False, True)
    if level is not ExchangeLevel.SHORT_APDU or automatic
    if level is not ExchangeLevel.EXTENDED_APDU or automatic
]
T1_ONLY = bytes.fromhex("3B80810100")
HOST = (ExchangeLevel.CHARACTER, ExchangeLevel.TPDU)
QUICK = {"dwDefaultClock": 60_000, "dwMaximumClock": 60_000, "dwMaxDataRate": 5_000_000}
"""A clock frequency at which a card that does not answer costs little time."""


def reader_of(
    card: Application | Contact, level: ExchangeLevel, automatic: bool = False, **fields: int
) -> ccid.VirtualReader:
    """A reader that does PPS and IFSD itself, or leaves both to the host."""
    bits = Features.AUTO_PPS | Features.AUTO_IFSD if automatic else Features(0)
    fields = {"dwFeatures": MANUAL | bits | level, **fields}
    return ccid.VirtualReader(card, descriptor=make_descriptor(level, **fields))


@pytest.mark.parametrize(("level", "protocol", "automatic"), WAYS)
def test_short_cases(level: ExchangeLevel, protocol: Protocol, automatic: bool) -> None:
    virtual = reader_of(EchoCard(), level, automatic)
    with ccid.open_reader(virtual) as reader:
        with reader.slots[0].connect(protocol, auto_get_response=True) as card:
            assert card.protocol is protocol
            assert card.fidi == 0x96
            assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"
            for n in (1, 10, 52, 54, 200, 255, 256):
                data = bytes(i * 3 & 255 for i in range(n))
                ne = bytes((n & 255,))
                assert card.transmit(b"\0\x10\0\0" + ne)[-2:] == b"\x90\x00"
                if n < 256:
                    assert card.transmit(b"\0\x20\0\0" + ne + data) == b"\x90\x00"
                    assert card.transmit(b"\0\x30\0\0" + ne + data + b"\0") == data + b"\x90\x00"
            assert card.transmit(bytes.fromhex("00526A82")) == b"\x6a\x82"
    assert virtual.functions[0].slots[0].power_ons == 1, "nothing had to be tried twice"


@pytest.mark.parametrize(("level", "protocol", "automatic"), WAYS)
@pytest.mark.parametrize("nc", [256, 3000, 65535])
def test_extended_apdus(level: ExchangeLevel, protocol: Protocol, automatic: bool, nc: int) -> None:
    data = bytes(i * 7 & 255 for i in range(nc))
    apdu = CommandApdu(0, 0x30, data=data, ne=65536, extended=True).build()
    with ccid.open_reader(reader_of(EchoCard(), level, automatic)) as reader:
        with reader.slots[0].connect(protocol) as card:
            if level is ExchangeLevel.EXTENDED_APDU or (level in HOST and protocol is Protocol.T1):
                assert card.transmit(apdu) == data + b"\x90\x00"
            else:
                with pytest.raises(CcidError):
                    card.transmit(apdu)


class Enveloped(EchoCard):
    """A card that accepts ENVELOPE: it executes the APDU in the data when the APDU is complete."""

    def __init__(self) -> None:
        super().__init__(atrs.FAST_T0)
        self._envelope = b""

    def process(self, command: CommandApdu) -> Answer:
        if command.ins != 0xC2:
            return super().process(command)
        self._envelope += command.data
        try:
            whole = CommandApdu.parse(self._envelope)
        except CcidError:
            return Answer()
        self._envelope = b""
        return super().process(whole)


@pytest.mark.parametrize("level", HOST)
def test_extended_apdus_on_t0_by_envelope(level: ExchangeLevel) -> None:
    data = bytes(i * 7 & 255 for i in range(700))
    apdu = CommandApdu(0, 0x30, data=data, ne=65536, extended=True).build()
    with ccid.open_reader(reader_of(Enveloped(), level)) as reader:
        with reader.slots[0].connect(auto_get_response=True) as card:
            assert card.transmit(apdu) == data + b"\x90\x00"


# PPS and parameters ---------------------------------------------------------------------------

ANSWERS = [how for how in Pps if how is not Pps.ECHO]


@pytest.mark.parametrize("how", ANSWERS)
@pytest.mark.parametrize("level", HOST)
def test_a_failed_pps_ends_in_a_lower_speed(level: ExchangeLevel, how: Pps) -> None:
    """The card is not lost: after a reset a slower PPS follows, and at last no PPS."""
    contact = Contact(EchoCard(atrs.FAST_T1), ContactOptions(pps=how))
    virtual = reader_of(contact, level, False, **QUICK)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.fidi == 0x11
        assert card.transmit(bytes.fromhex("0030000003 010203 00")) == b"\1\2\3\x90\x00"


def test_the_other_protocol_if_pps_does_not_get_the_first() -> None:
    contact = Contact(EchoCard(atrs.BOTH), ContactOptions(pps=Pps.MUTE))
    with ccid.open_reader(reader_of(contact, ExchangeLevel.TPDU, False, **QUICK)) as reader:
        with reader.slots[0].connect() as card:
            assert (card.protocol, card.fidi) == (Protocol.T0, 0x11)
            assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"


@pytest.mark.parametrize(
    ("atr", "most", "fidi"),
    [
        (atrs.FAST_T1, 250000, 0x96),
        (atrs.FAST_T1, 130000, 0x95),
        (atrs.FAST_T1, 62500, 0x94),
        (atrs.FAST_T1, 10752, 0x11),
        (atrs.TOO_FAST_T1, 125000, 0x98),
        (atrs.TOO_FAST_T1, 80000, 0x94),
        (atrs.BEYOND, 129032, 0x18),
        (atrs.BEYOND, 86021, 0x14),
        (atrs.BEYOND, 43010, 0x13),
    ],
)
@pytest.mark.parametrize("level", HOST)
def test_the_fastest_that_both_have(level: ExchangeLevel, atr: bytes, most: int, fidi: int) -> None:
    virtual = reader_of(EchoCard(atr), level, dwMaxDataRate=most)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.fidi == fidi
        assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"


def test_a_speed_slower_than_the_default() -> None:
    """TA1 = 31: Fi = 744; the card asks for half the default rate and gets it."""
    slow = atrs.atr_of("15", "31", tck=False)
    with ccid.open_reader(reader_of(EchoCard(slow), ExchangeLevel.TPDU)) as reader:
        with reader.slots[0].connect() as card:
            assert card.fidi == 0x31
            assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"


APDU_LEVELS = (ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU)


@pytest.mark.parametrize("level", APDU_LEVELS)
@pytest.mark.parametrize(
    ("protocols", "wanted", "agreed"),
    [
        (3, None, Protocol.T0),
        (3, Protocol.T1, Protocol.T1),
        (2, None, Protocol.T1),
        (1, None, Protocol.T0),
    ],
)
@pytest.mark.parametrize("features", [0, MANUAL, Features.AUTO_PARAMETERS])
def test_at_apdu_level_no_pps_goes_for_an_apdu(
    level: ExchangeLevel,
    protocols: int,
    wanted: Protocol | None,
    agreed: Protocol,
    features: int,
) -> None:
    """The card has T=0 first, and a speed that needs a PPS. The reader declares no PPS, and its
    XfrBlock carries APDUs. The card keeps its speed, and SetParameters says so."""
    sent: list[bytes] = []

    class Card(EchoCard):
        def transmit(self, apdu: bytes) -> Answer:
            sent.append(apdu)
            return super().transmit(apdu)

    virtual = reader_of(Card(atrs.BOTH), level, dwFeatures=features | level, dwProtocols=protocols)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect(wanted) as card:
        assert (card.protocol, card.fidi) == (agreed, 0x11)
        assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"
        slot = virtual.functions[0].slots[0]
        assert slot.protocol is agreed
        assert slot.parameters[agreed].bmFindexDindex == 0x11
    assert sent == [bytes.fromhex("00400000")]
    assert slot.power_ons == 1


def test_a_reader_that_declares_its_pps_is_told_the_speed() -> None:
    virtual = reader_of(EchoCard(atrs.BOTH), ExchangeLevel.SHORT_APDU, True)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert (card.protocol, card.fidi) == (Protocol.T1, 0x96)


@pytest.mark.parametrize(
    ("atr", "protocols", "wanted", "what"),
    [
        (b"\x3b\x00", 2, None, "offers T=0; the reader has T=1 alone. If .* contactless"),
        (b"\x3b\x02AB", 2, None, "offers T=0; the reader has T=1 alone. .* needs a reader .* T=0"),
        (T1_ONLY, 1, None, "offers T=1; the reader has T=0 alone. .* needs a reader .* T=1"),
        (
            atrs.BOTH,
            1,
            Protocol.T1,
            "offers T=0 and T=1; the reader has T=0 alone; T=1 was asked for",
        ),
        (T1_ONLY, 3, Protocol.T0, "offers T=1; the reader has T=0 and T=1; T=0 was asked for"),
        (atrs.SPECIFIC_T1, 1, None, "insists on T=1; the reader has T=0 alone"),
    ],
)
def test_no_protocol_in_common_in_words(
    atr: bytes, protocols: int, wanted: Protocol | None, what: str
) -> None:
    virtual = reader_of(EchoCard(atr), ExchangeLevel.TPDU, dwProtocols=protocols)
    with ccid.open_reader(virtual) as reader:
        with pytest.raises(UnsupportedByReader, match=what) as caught:
            reader.slots[0].connect(wanted)
    assert "0x" not in str(caught.value), "no number for people to look up"


CASE_2E, CASE_3E = bytes.fromhex("00100000000100"), bytes.fromhex("00200000000003") + b"abc"


@pytest.mark.parametrize("apdu", [CASE_2E, CASE_3E, CASE_3E + b"\0\0", CASE_3E[:6] + bytes(400)])
@pytest.mark.parametrize("bError", [0x00, 0x01, 0x0A, 0xF3, 0xF4, 0xF5, 0xF6])
def test_a_reader_that_refuses_an_extended_apdu(apdu: bytes, bError: int) -> None:
    """Whatever error the reader gives: the reason is that the APDU is an extended APDU."""
    virtual = reader_of(EchoCard(), ExchangeLevel.SHORT_APDU, True)
    virtual.faults.append(faults.failing(bError, on=PC_to_RDR_XfrBlock, times=None))
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        with pytest.raises(UnsupportedByReader, match=r"short APDUs only.*chaining") as error:
            card.transmit(apdu)
        assert error.value.bError in (bError, None)
        with pytest.raises((CommandFailed, UnsupportedByReader)) as short:
            card.transmit(bytes.fromhex("00400000"))
        assert "extended" not in str(short.value)


@pytest.mark.parametrize("bError", [SlotError.HW_ERROR, SlotError.ICC_MUTE, 0x90])
def test_what_may_be_another_matter_stays_that_error(bError: int) -> None:
    virtual = reader_of(EchoCard(), ExchangeLevel.SHORT_APDU, True)
    virtual.faults.append(faults.failing(bError, on=PC_to_RDR_XfrBlock, times=None))
    kind = CardMute if bError == SlotError.ICC_MUTE else CommandFailed
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        with pytest.raises(kind, match="short APDUs only") as error:
            card.transmit(CASE_3E)
    assert error.value.bError == bError


def test_a_card_that_is_gone_is_no_matter_of_lengths() -> None:
    virtual = reader_of(EchoCard(), ExchangeLevel.SHORT_APDU, True)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.remove()
        with pytest.raises(CardRemoved):
            card.transmit(CASE_3E)


@pytest.mark.parametrize("level", HOST)
@pytest.mark.parametrize("apdu", [CASE_2E, CASE_3E, CASE_3E[:6] + bytes(400)])
def test_an_extended_apdu_with_t0(level: ExchangeLevel, apdu: bytes) -> None:
    with ccid.open_reader(reader_of(EchoCard(), level)) as reader:
        with reader.slots[0].connect(Protocol.T0) as card:
            with pytest.raises(UnsupportedByReader, match=r"T=0 carries short APDUs.*ENVELOPE"):
                card.transmit(apdu)


@pytest.mark.parametrize("level", HOST)
def test_specific_mode_is_obeyed(level: ExchangeLevel) -> None:
    virtual = reader_of(EchoCard(atrs.SPECIFIC_T1), level)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert (card.protocol, card.fidi) == (Protocol.T1, 0x96)
        assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"


@pytest.mark.parametrize(
    ("atr", "fields", "what"),
    [
        (atrs.SPECIFIC_T1, {"dwMaxDataRate": 20000}, "insists on 250000 bit/s"),
        (atrs.IMPLICIT_T1, {}, "specific mode"),
        (atrs.atr_of("95", "76 91 01 31 FE 45", tck=True), {}, "reserved code"),
        (atrs.SPECIFIC_T1, {"dwProtocols": 1}, "insists on T=1"),
    ],
)
def test_or_refused_with_a_clear_error(atr: bytes, fields: dict[str, int], what: str) -> None:
    virtual = reader_of(EchoCard(atr), ExchangeLevel.TPDU, False, **fields)
    with ccid.open_reader(virtual) as reader, pytest.raises(UnsupportedByReader, match=what):
        reader.slots[0].connect()
    assert not virtual.functions[0].slots[0].powered


def test_parameters_that_cannot_be_changed_are_read_back() -> None:
    """bError 10: this reader keeps its Fi and Di, and reports them."""
    features = MANUAL | Features.AUTO_PPS | ExchangeLevel.SHORT_APDU
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, dwFeatures=features)
    virtual = ccid.VirtualReader(
        EchoCard(atrs.FAST_T1), descriptor=descriptor, unchangeable=["bmFindexDindex"]
    )
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.fidi == 0x11


def test_what_a_reader_is_told_with_crc_and_inverse_convention() -> None:
    inverse = bytes((0x3F,)) + atrs.CRC_T1[1:]
    virtual = reader_of(EchoCard(inverse), ExchangeLevel.TPDU)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect():
        told = virtual.functions[0].slots[0].parameters[Protocol.T1]
    assert told.build().hex() == "96130045 00fe00".replace(" ", "")


def test_a_card_known_to_promise_too_much() -> None:
    """The OpenPGP card 2.0 declares BWI 4 and needs BWI 7."""
    atr = bytes.fromhex("3BFA1300FF813180450031C173C00100009000B1")
    virtual = reader_of(EchoCard(atr), ExchangeLevel.TPDU)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        told = virtual.functions[0].slots[0].parameters[Protocol.T1]
        assert told.build()[3] == 0x75
        assert 12 < card.timeout_s < 16


def test_times_follow_the_speed_in_force() -> None:
    """The reference driver computes with TA1, even if another speed was negotiated."""
    for most, fidi in ((250000, 0x96), (10752, 0x11)):
        virtual = reader_of(EchoCard(atrs.FAST_T1), ExchangeLevel.TPDU, dwMaxDataRate=most)
        with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
            timing = card.agreement.timing
            assert timing is not None
            expected = {0x96: 16 / 4e6, 0x11: 372 / 4e6}[fidi]
            assert timing.etu_s == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ifsd", "expected"), [(0, 254), (254, 254), (255, 254), (1000, 254), (100, 100)]
)
def test_ifsd_is_what_makes_sense(ifsd: int, expected: int) -> None:
    contact = Contact(EchoCard(atrs.FAST_T1))
    with ccid.open_reader(reader_of(contact, ExchangeLevel.TPDU, dwMaxIFSD=ifsd)) as reader:
        with reader.slots[0].connect() as card:
            assert contact.t1.ifsd == expected
            assert len(card.transmit(bytes.fromhex("0010000000"))) == 258


def test_ifsd_and_ifsc_are_held_to_the_readers_messages() -> None:
    contact = Contact(EchoCard(atrs.FAST_T1))
    virtual = reader_of(contact, ExchangeLevel.TPDU, dwMaxCCIDMessageLength=100)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert contact.t1.ifsd == 100 - 10 - 4
        data = bytes(200)
        assert card.transmit(b"\0\x30\0\0\xc8" + data + b"\0") == data + b"\x90\x00"


def test_a_card_that_refuses_s_ifs_keeps_32() -> None:
    contact = Contact(EchoCard(atrs.FAST_T1), ContactOptions(t1=T1Options(accepts_ifs=False)))
    with ccid.open_reader(reader_of(contact, ExchangeLevel.TPDU)) as reader:
        with reader.slots[0].connect() as card:
            assert card.agreement.t1 is not None
            assert card.agreement.t1.ifsd == 32
            assert len(card.transmit(bytes.fromhex("0010000064"))) == 102


@pytest.mark.parametrize("check", [Check.CRC, Check.CRC_13239])
@pytest.mark.parametrize("level", HOST)
def test_crc(level: ExchangeLevel, check: Check) -> None:
    """Both check codes that cards may have. At character level the reference driver reads one byte
    of the check code too few."""
    contact = Contact(EchoCard(atrs.CRC_T1), ContactOptions(t1=T1Options(check=check)))
    virtual = reader_of(contact, level)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.fidi == 0x96
        assert card.transmit(bytes.fromhex("0030000003 010203 00")) == b"\1\2\3\x90\x00"
    assert virtual.functions[0].slots[0].power_ons == 1


def test_ifsc_of_the_atr_is_used_at_character_level() -> None:
    """The reference keeps 32 there."""
    contact = Contact(EchoCard(atrs.FAST_T1))
    virtual = reader_of(contact, ExchangeLevel.CHARACTER)
    longest = 0

    def measure(data: bytes, before: Callable[..., object] = contact.t1.receive) -> object:
        nonlocal longest
        longest = max(longest, len(data))
        return before(data)

    contact.t1.receive = measure  # type: ignore[method-assign,assignment]
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        card.transmit(b"\0\x20\0\0\xf0" + bytes(240))
    assert longest == 3 + 245 + 1


# Voltage --------------------------------------------------------------------------------------


def seen_voltages(virtual: ccid.VirtualReader) -> list[int]:
    """The values of bPowerSelect that were sent; the list grows as they come."""
    seen: list[int] = []
    heard = virtual.functions[0].journal.heard

    def listen(message: bytes, framing: Framing = Framing.APDU) -> None:
        if message[0] == 0x62:
            seen.append(message[7])
        heard(message, framing)

    virtual.functions[0].journal.heard = listen  # type: ignore[method-assign]
    return seen


def test_the_class_indicator_is_looked_at() -> None:
    """A card that answers at 5 V, and declares class B and C (3 V and 1.8 V), gets 1.8 V."""
    low = atrs.atr_of("85", "81 31 FE 45".replace("81 31", "81 B1") + " 1F 06", tck=True)
    descriptor = make_descriptor(
        ExchangeLevel.SHORT_APDU,
        dwFeatures=Features.AUTO_PPS | ExchangeLevel.SHORT_APDU,
        bVoltageSupport=7,
    )
    virtual = ccid.VirtualReader(EchoCard(low), descriptor=descriptor)
    seen = seen_voltages(virtual)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.atr.classes == 6
    assert seen == [1, 3]


# Disturbed lines ------------------------------------------------------------------------------

DISTURBED: dict[str, Callable[[], contact_faults.ContactFault]] = {
    "corrupt I": lambda: contact_faults.corrupt(on="I"),
    "corrupt I twice": lambda: contact_faults.corrupt(on="I", times=2),
    "parity": lambda: contact_faults.parity_error(on="I"),
    "lost": lambda: contact_faults.silence(on="I"),
    "wrong N(S)": lambda: contact_faults.wrong_ns(),
    "cut short": lambda: contact_faults.cut_short(4, on="I"),
    "WTX": lambda: contact_faults.asks_wtx(2, on="I"),
    "WTX five times": lambda: contact_faults.asks_wtx(1, on="I", times=5),
    "IFS": lambda: contact_faults.asks_ifs(20, on="I"),
    "wrong NAD": lambda: contact_faults.wrong_nad(on="I"),
}


@pytest.mark.parametrize("level", HOST)
@pytest.mark.parametrize("name", DISTURBED)
def test_t1_gets_over_it(level: ExchangeLevel, name: str) -> None:
    # BWI 0: losses cost little time
    card_ = EchoCard(atrs.atr_of("95", "96 81 31 FE 00", tck=True))
    contact = Contact(card_)
    with ccid.open_reader(reader_of(contact, level)) as reader:
        with reader.slots[0].connect() as card:
            contact.faults.append(DISTURBED[name]())
            before = card_.commands
            assert card.transmit(bytes.fromhex("0030000003 010203 00")) == b"\1\2\3\x90\x00"
            assert card.transmit(bytes.fromhex("0030000003 040506 00")) == b"\4\5\6\x90\x00"
            assert card_.commands - before == 2


def test_bytes_too_many_are_no_disturbance() -> None:
    contact = Contact(EchoCard(atrs.FAST_T1))
    with ccid.open_reader(reader_of(contact, ExchangeLevel.TPDU)) as reader:
        with reader.slots[0].connect() as card:
            contact.faults.append(contact_faults.followed_by(b"\xaa\xbb", on="I"))
            assert card.transmit(bytes.fromhex("0030000003 010203 00")) == b"\1\2\3\x90\x00"
            assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"


@pytest.mark.parametrize("level", HOST)
def test_a_card_that_insists_on_what_it_must_not_ask(level: ExchangeLevel) -> None:
    """Only the interface device may send S(RESYNCH request): the host raises an error in bounded
    time, and executes nothing twice. The next command finds host and card in step again."""
    echo = EchoCard(atrs.FAST_T1)
    contact = Contact(echo)
    with ccid.open_reader(reader_of(contact, level)) as reader:
        with reader.slots[0].connect() as card:
            contact.faults.append(contact_faults.asks_resynch(on="I"))
            before = echo.commands
            with pytest.raises(ProtocolError) as error:
                card.transmit(bytes.fromhex("00400000"))
            assert error.value.may_have_executed
            assert echo.commands - before == 1
            assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"
            assert echo.commands - before == 2


@pytest.mark.parametrize("level", HOST)
def test_never_executed_twice(level: ExchangeLevel) -> None:
    """After three corrupt answers in succession the host does not send the command again: the card
    executed the command."""
    echo = EchoCard(atrs.atr_of("95", "96 81 31 FE 00", tck=True))
    contact = Contact(echo)
    with ccid.open_reader(reader_of(contact, level)) as reader:
        with reader.slots[0].connect() as card:
            contact.faults.append(contact_faults.corrupt(times=3))
            before = echo.commands
            with pytest.raises(ProtocolError) as error:
                card.transmit(bytes.fromhex("00400000"))
            assert error.value.may_have_executed
            assert echo.commands - before == 1
            assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"
            assert echo.commands - before == 2


@pytest.mark.parametrize("level", HOST)
def test_a_removed_card_is_no_disturbance(level: ExchangeLevel) -> None:
    contact = Contact(EchoCard(atrs.FAST_T1))
    virtual = reader_of(contact, level)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.remove()
        with pytest.raises(CardRemoved):
            card.transmit(bytes.fromhex("00400000"))


@pytest.mark.parametrize("protocol", Protocol)
def test_extensions_are_bounded_by_total_time(protocol: Protocol) -> None:
    """Endless S(WTX request) and endless NULL bytes alike."""
    contact = Contact(EchoCard(atrs.BOTH))
    for level in HOST:
        fault = (
            contact_faults.asks_wtx(1, on="I", times=None)
            if protocol is Protocol.T1
            else contact_faults.nulls(100_000, every_s=0.01)
        )
        with ccid.open_reader(reader_of(contact, level)) as reader:
            with reader.slots[0].connect(protocol) as card:
                reader.pipe.max_command_s = 0.3
                contact.faults[:] = [fault]
                began = time.monotonic()
                with pytest.raises(CcidError):
                    card.transmit(bytes.fromhex("00400000"))
                assert time.monotonic() - began < 10
                contact.faults.clear()


@pytest.mark.parametrize("level", HOST)
def test_t0_byte_by_byte(level: ExchangeLevel) -> None:
    contact = Contact(
        EchoCard(atrs.FAST_T0), ContactOptions(t0=T0Options(nulls=2, one_by_one=True))
    )
    with ccid.open_reader(reader_of(contact, level)) as reader:
        with reader.slots[0].connect(auto_get_response=True) as card:
            assert card.transmit(bytes.fromhex("0030000003 010203 00")) == b"\1\2\3\x90\x00"


def test_a_mute_card_at_the_first_block() -> None:
    """A card that does not answer S(IFS) at any speed counts as mute."""
    contact = Contact(EchoCard(atrs.atr_of("85", "81 31 FE 00", tck=True)))
    contact.faults.append(contact_faults.silence(times=None))
    with ccid.open_reader(reader_of(contact, ExchangeLevel.TPDU)) as reader:
        with pytest.raises(CardMute):
            reader.slots[0].connect()


def test_a_reader_that_cannot_is_no_disturbed_line() -> None:
    virtual = reader_of(EchoCard(atrs.FAST_T1), ExchangeLevel.TPDU)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.faults.append(faults.failing(SlotError.HW_ERROR, on=PC_to_RDR_XfrBlock))
        with pytest.raises(CcidError, match="HW_ERROR"):
            card.transmit(bytes.fromhex("00400000"))
        assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"


def test_a_reader_that_says_nonsense_of_what_it_negotiated() -> None:
    """QEMU's reader answers GetParameters with 7 bytes that dwLength does not count."""
    features = MANUAL | Features.AUTO_NEGOTIATION | ExchangeLevel.TPDU
    virtual = ccid.VirtualReader(
        EchoCard(atrs.BOTH), descriptor=make_descriptor(ExchangeLevel.TPDU, dwFeatures=features)
    )
    virtual.faults.append(faults.lying_length(-7, on=PC_to_RDR_GetParameters, times=None))
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.protocol is Protocol.T1
        assert card.transmit(bytes.fromhex("00400000")) == b"\x90\x00"


@pytest.mark.parametrize("bError", [SlotError.BUSY_WITH_AUTO_SEQUENCE, SlotError.HW_ERROR])
def test_a_reader_that_fails_to_say_what_it_negotiated(bError: SlotError) -> None:
    """The reader has chosen T=1. If the host assumed T=0, an R-block would count as a response."""
    features = MANUAL | Features.AUTO_NEGOTIATION | ExchangeLevel.TPDU
    virtual = ccid.VirtualReader(
        EchoCard(atrs.BOTH), descriptor=make_descriptor(ExchangeLevel.TPDU, dwFeatures=features)
    )
    virtual.faults.append(faults.failing(bError, on=PC_to_RDR_GetParameters))
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect(Protocol.T0) as card:
        assert card.transmit(bytes.fromhex("0030000004 01020304")) == b"\x61\x04"


def test_t0_after_a_command_that_broke_off_in_the_middle() -> None:
    """The card waits for its data, and would execute whatever comes instead."""
    carried_out: list[int] = []

    class Listening(EchoCard):
        def process(self, command: CommandApdu) -> Answer:
            carried_out.append(command.ins)
            return super().process(command)

    virtual = ccid.VirtualReader(
        Listening(atrs.FAST_T0), descriptor=make_descriptor(ExchangeLevel.CHARACTER)
    )
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.faults.append(faults.stall_in(on=PC_to_RDR_XfrBlock))
        with pytest.raises(TransportStall):
            card.transmit(bytes.fromhex("0020000008") + bytes(8))
        for _ in range(2):
            with pytest.raises(ProtocolError, match="reset the card") as raised:
                card.transmit(bytes.fromhex("0040000000"))
            assert not raised.value.may_have_executed
        assert not carried_out
        card.reset()
        assert card.transmit(bytes.fromhex("0040000000")) == b"\x90\x00"


def test_a_card_that_cannot_be_used_keeps_no_power(monkeypatch: pytest.MonkeyPatch) -> None:
    virtual = reader_of(EchoCard(atrs.FAST_T1), ExchangeLevel.TPDU)

    def choose(*_: Any) -> Any:
        raise ReaderUnsupported("no level of exchange")

    monkeypatch.setattr("ccid.device.card.choose", choose)
    with ccid.open_reader(virtual) as reader:
        with pytest.raises(ReaderUnsupported):
            reader.slots[0].connect()
        assert reader.slots[0].status() is IccStatus.INACTIVE
