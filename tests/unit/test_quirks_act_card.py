"""Each quirk on a virtual reader with the fault: the reader fails without the quirk and works with
the quirk. In this file: wrong class descriptors, and the exchange between card and reader."""

from __future__ import annotations

from typing import Any

import pytest

import ccid
from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import PC_to_RDR_SetParameters, PC_to_RDR_XfrBlock, PinVerification
from ccid.codes import ExchangeLevel, Features, Protocol, SlotError
from ccid.errors import (
    CardMute,
    CcidError,
    ProtocolError,
    ReaderUnsupported,
    TransportTimeout,
    UnsupportedByReader,
)
from ccid.iso7816.apdu import MAX_SHORT, CommandApdu
from ccid.iso7816.error_detection import lrc
from ccid.known.catalog import catalog
from ccid.known.descriptor_figures import figures
from ccid.virtual import EchoCard, faults, known_faults, make_descriptor
from ccid.virtual.cards import Contact
from ccid.virtual.models import virtual_reader
from tests.unit.quirk_bench import CASE_1, Table, answers, covers, virtual
from tests.unit.test_trace import Recorder
from tests.vm.differential import scenario_parts as atrs

OK = [b"\x90\x00"]
IMPATIENT_S = 0.4
"""Time limit in seconds for commands that are never answered."""
MANUAL = Features.AUTO_VOLTAGE | Features.AUTO_CLOCK | Features.AUTO_BAUD_RATE
"""The host does PPS and IFSD."""
T1_ONLY = bytes.fromhex("3B80810100")
T0_ONLY = bytes.fromhex("3B00")


def tpdu(
    reader: str, card: Any = EchoCard, bcdDevice: int = 0x100, **more: int
) -> ccid.VirtualReader:
    """A reader at TPDU level that leaves everything to the host."""
    fields = {"dwFeatures": MANUAL | ExchangeLevel.TPDU, **more}
    return virtual(reader, ExchangeLevel.TPDU, card, bcdDevice=bcdDevice, fields=fields)


def declares(reader: ccid.VirtualReader, really: SmartCardDescriptor) -> ccid.VirtualReader:
    """``reader`` with its own class descriptor, which behaves like a reader with another one."""
    reader.functions[0].descriptor = really
    return reader


# The class descriptor -------------------------------------------------------------------------


@covers("no-pin-support")
def test_a_pin_pad_that_is_none(table: Table) -> None:
    def pin_by_the_reader_if_it_can() -> None:
        with ccid.open_reader(virtual("25dd:3111", fields={"bPINSupport": 3})) as reader:
            if not reader.descriptor.bPINSupport:
                return
            structure = PinVerification(
                bmFormatString=0x82,
                bmPINBlockString=0,
                bmPINLengthFormat=0,
                wPINMaxExtraDigit=0x0408,
                bEntryValidationCondition=2,
                bNumberMessage=1,
                wLangId=0x0409,
            )
            reader.slots[0].commands.secure(0, structure, timeout_s=1.0)

    table.without("25dd:3111")
    with pytest.raises(UnsupportedByReader):
        pin_by_the_reader_if_it_can()
    table.as_it_is()
    pin_by_the_reader_if_it_can()


@covers("dwProtocols")
def test_protocols_in_the_wrong_order(table: Table) -> None:
    def my_smart_pad() -> ccid.VirtualReader:
        reader = tpdu("09be:0002", dwProtocols=0x0300)
        return declares(reader, tpdu("09be:0002").functions[0].descriptor)

    table.without("09be:0002")
    with pytest.raises(ReaderUnsupported, match="neither T=0 nor T=1"):
        answers(my_smart_pad())
    table.as_it_is()
    assert answers(my_smart_pad()) == OK


@covers("dwMaxIFSD")
def test_a_buffer_smaller_than_declared(table: Table) -> None:
    read_200 = bytes.fromhex("00100000C8")

    def small() -> ccid.VirtualReader:
        reader = tpdu("09be:0002", EchoCard(T1_ONLY))
        reader.faults.append(known_faults.loses_long_blocks(3 + 64 + 1))
        return reader

    table.without("09be:0002")
    with pytest.raises(CcidError):
        answers(small(), read_200)
    table.only("09be:0002", "dwMaxIFSD = 64")
    assert len(answers(small(), read_200)[0]) == 202
    table.as_it_is()
    with ccid.open_reader(tpdu("09be:0002", dwMaxIFSD=0)) as reader:
        assert reader.descriptor.dwMaxIFSD == 254


@covers("dwMaxCCIDMessageLength")
def test_a_message_length_smaller_than_the_reader_takes(table: Table) -> None:
    longest = bytes.fromhex("00400000FF") + bytes(255) + b"\0"

    def scr331() -> ccid.VirtualReader:
        fields = {"dwMaxCCIDMessageLength": 263}
        return virtual("04e6:5111", bcdDevice=0x0632, fields=fields)

    assert len(longest) == MAX_SHORT
    table.without("04e6:5111")
    with pytest.raises(UnsupportedByReader, match="dwMaxCCIDMessageLength allows 253"):
        answers(scr331(), longest)
    table.as_it_is()
    assert answers(scr331(), longest)[0][-2:] == b"\x90\x00"


def test_every_known_reader_that_declares_263_has_the_quirk() -> None:
    declaring = [
        entry.known
        for entry in catalog()
        if any(
            i.descriptor.dwMaxCCIDMessageLength == 263
            for one in entry.devices
            for i in one.interfaces
        )
    ]
    assert len(declaring) == 8
    assert all(known.quirks.message_length == 271 for known in declaring)


@covers("dwMaxDataRate")
def test_rates_that_are_declared_and_do_not_work(table: Table) -> None:
    def au9540() -> ccid.VirtualReader:
        device = figures(0x058F, 0x9540)[0]
        reader = virtual_reader(device, lambda: EchoCard(atrs.FAST_T1))
        reader.faults.append(known_faults.mute_at(lambda rate: rate > 200_000))
        return reader

    table.without("058f:9540")
    with pytest.raises(CardMute):
        answers(au9540())
    table.as_it_is()
    assert answers(au9540()) == OK


@covers("data-rates")
def test_a_slot_that_is_slower_than_the_others(table: Table) -> None:
    """With T=0 no block goes to the card before the first APDU, so the reader cannot report its
    time."""

    def pos_pro() -> ccid.VirtualReader:
        fields = {"dwFeatures": MANUAL | ExchangeLevel.TPDU, "dwMaxDataRate": 500_000}
        cards = [EchoCard(atrs.FAST_T0) for _ in range(2)]
        reader = virtual("08e6:3479", ExchangeLevel.TPDU, cards, slots=2, fields=fields)
        listed = (10753, 21505, 43011, 125_000)
        wrong = known_faults.mute_at(lambda rate: all(abs(rate - one) > 1 for one in listed), 1)
        reader.faults.append(wrong)
        return reader

    def both() -> list[int]:
        with ccid.open_reader(pos_pro()) as reader:
            found = []
            for slot in reader.slots:
                with slot.connect() as card:
                    assert card.transmit(CASE_1) == b"\x90\x00"
                    found.append(card.fidi)
            return found

    table.without("08e6:3479")
    with pytest.raises(CardMute):
        both()
    table.as_it_is()
    assert both() == [0x96, 0x95]
    table.only("08e6:3479", "data-rates = [10753]")
    assert both() == [0x11, 0x11]


CHAINED = CommandApdu(0, 0x10, ne=256).build()


@covers("exchange-level")
def test_a_reader_that_chains_without_declaring_it(table: Table) -> None:
    def pn7362() -> ccid.VirtualReader:
        reader = virtual("2f7c:6007")
        chains = make_descriptor(ExchangeLevel.EXTENDED_APDU, dwMaxCCIDMessageLength=138)
        return declares(reader, chains)

    whole = bytes(i & 255 for i in range(256)) + b"\x90\x00"
    table.without("2f7c:6007")
    assert answers(pn7362(), CHAINED) == [whole[:128]], "the rest is lost"
    table.as_it_is()
    assert answers(pn7362(), CHAINED) == [whole]


@covers("exchange-level-if")
def test_a_level_that_only_some_declare_wrongly(table: Table) -> None:
    """One firmware of a reader declares short APDU level and chains; another behaves as
    declared."""

    def kc1000(declared: ExchangeLevel, really: ExchangeLevel) -> ccid.VirtualReader:
        reader = virtual("046a:00a1", declared, EchoCard(T1_ONLY))
        return declares(reader, make_descriptor(really))

    honest = (ExchangeLevel.TPDU, ExchangeLevel.TPDU)
    chains = (ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU)
    table.only("046a:00a1", 'exchange-level = "extended-apdu"')
    assert answers(kc1000(*honest)) != OK, "the card got no block, and what came is none"
    table.as_it_is()
    assert answers(kc1000(*honest)) == OK
    with ccid.open_reader(kc1000(*chains)) as reader:
        assert reader.descriptor.exchange_level is ExchangeLevel.EXTENDED_APDU


@covers("dwFeatures-set")
def test_a_token_that_an_ifs_request_spoils(table: Table) -> None:
    def etoken() -> ccid.VirtualReader:
        reader = tpdu("0529:0620", EchoCard(T1_ONLY), 0x0012)
        reader.faults.append(known_faults.empty_after_ifs_request())
        return reader

    table.without("0529:0620")
    with pytest.raises(CcidError):
        answers(etoken())
    table.as_it_is()
    assert answers(etoken()) == OK


# Parameters -----------------------------------------------------------------------------------


@covers("no-pps")
def test_a_reader_that_a_pps_hangs(table: Table) -> None:
    def oz776() -> ccid.VirtualReader:
        reader = virtual_reader(figures(0x0B97, 0x7772)[0], EchoCard)
        reader.faults.append(known_faults.hangs_at_pps())
        return reader

    table.without("0b97:7772")
    with pytest.raises(TransportTimeout):
        answers(oz776(), max_command_s=IMPATIENT_S)
    table.as_it_is()
    assert answers(oz776(), max_command_s=IMPATIENT_S) == OK
    with ccid.open_reader(oz776()) as reader:
        with reader.slots[0].connect() as card:
            assert (card.protocol, card.fidi) == (Protocol.T0, 0x11)
        with pytest.raises(UnsupportedByReader, match="no PPS gets through"):
            reader.slots[0].connect(Protocol.T1)
        activation = reader.slots[0].activation()
        activation.power_up()
        with pytest.raises(UnsupportedByReader, match="no PPS gets through"):
            activation.agree(None, 0x96)


def test_a_card_in_specific_mode_needs_no_pps(table: Table) -> None:
    table.only("1209:0001", "no-pps = true")
    card = EchoCard(bytes.fromhex("3B90951000"))
    with ccid.open_reader(tpdu("1209:0001", card)) as reader:
        with reader.slots[0].connect() as connected:
            assert connected.fidi == 0x95


@covers("reset-if-parameters-fail")
def test_a_card_whose_parameters_the_reader_does_not_set(table: Table) -> None:
    def au9540(icc: Any = None) -> ccid.VirtualReader:
        fields = {"dwFeatures": MANUAL | Features.AUTO_PARAMETERS | ExchangeLevel.TPDU}
        reader = virtual("058f:9540", ExchangeLevel.TPDU, EchoCard(T1_ONLY), fields=fields)
        failing = faults.failing(SlotError.HW_ERROR, icc, on=PC_to_RDR_SetParameters, times=None)
        reader.faults.append(failing)
        return reader

    table.without("058f:9540")
    with pytest.raises(CcidError):
        answers(au9540())
    table.as_it_is()
    reader = au9540()
    assert answers(reader) == OK
    assert reader.functions[0].slots[0].power_ons == 3, "up, then cold, then warm"
    with pytest.raises(CcidError):
        answers(au9540(2))  # taken out
    with ccid.open_reader(virtual("058f:9540")) as opened:
        opened.slots[0].connect(Protocol.T0).disconnect()


@covers("t1-timeout-extra-s")
def test_a_reader_that_asks_for_no_time(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    make_key = bytes.fromhex("0050 0258")  # 600 ms
    monkeypatch.setattr("ccid.session.exchange.agreement.exchange_timeout", lambda *_: 0.1)

    def fusion(atr: bytes = T1_ONLY) -> ccid.VirtualReader:
        reader = virtual("08e6:34d2", ExchangeLevel.EXTENDED_APDU, EchoCard(atr))
        reader.functions[0].extension_s = None
        return reader

    table.without("08e6:34d2")
    with pytest.raises(TransportTimeout):
        answers(fusion(), make_key)
    table.as_it_is()
    assert answers(fusion(), make_key) == OK
    with pytest.raises(TransportTimeout):
        answers(fusion(T0_ONLY), make_key)


@covers("split-full-packets")
@pytest.mark.parametrize(("atr", "count"), [(T0_ONLY, 52), (T0_ONLY, 116), (T1_ONLY, 51)])
def test_a_reader_that_loses_full_packets(table: Table, atr: bytes, count: int) -> None:
    """A message of 64 or 128 bytes: with T=0 data and SW1 SW2 are lost, with T=1 also the check
    byte."""
    read = bytes((0, 0x10, 0, 0, count))

    def oz776() -> ccid.VirtualReader:
        reader = virtual("0b97:7762", ExchangeLevel.CHARACTER, EchoCard(atr))
        reader.faults.append(known_faults.loses_full_packets())
        return reader

    table.without("0b97:7762")
    with pytest.raises(TransportTimeout):
        answers(oz776(), read, max_command_s=IMPATIENT_S)
    table.as_it_is()
    assert answers(oz776(), read) == [bytes(range(count)) + b"\x90\x00"]


# APDUs that the driver answers ------------------------------------------------------------------


@covers("pseudo-apdus")
def test_apdus_that_the_driver_answers(table: Table) -> None:
    maker, release = bytes.fromhex("FF9A010100"), bytes.fromhex("FF9A010600")

    def id_token(card: EchoCard | Contact) -> ccid.VirtualReader:
        return virtual("0d46:301d", card=card, bcdDevice=0x0123)

    table.without("0d46:301d")
    assert answers(id_token(EchoCard()), maker) == [b"\x6d\x00"]
    table.as_it_is()
    card = EchoCard()
    asked = (maker, release, CASE_1)
    expected = [b"KOBIL systems\x90\x00", b"1.23\x90\x00", b"\x90\x00"]
    assert answers(id_token(card), *asked) == expected
    assert card.commands == 1
    with ccid.open_reader(id_token(EchoCard())) as reader:
        connected = reader.slots[0].connect()
        assert connected.transmit(bytearray(maker)) == expected[0]
        connected.disconnect()
        with pytest.raises(CcidError):
            connected.transmit(maker)


def test_no_other_reader_pays_for_them(table: Table) -> None:
    """The card has the exchange of the reader, without a wrapper."""
    with ccid.open_reader(virtual("08e6:3437")) as reader, reader.slots[0].connect() as card:
        assert type(card._exchange).__name__ == "SingleBlock"
    with ccid.open_reader(virtual("0d46:301d")) as reader, reader.slots[0].connect() as card:
        assert type(card._exchange).__name__ == "Answering"


def test_a_block_that_gets_lost_is_no_quirk(table: Table) -> None:
    """The second of two reads ends where no data came."""
    reader = virtual("0b97:7762", ExchangeLevel.CHARACTER, EchoCard(T0_ONLY))
    reader.faults.append(faults.failing(SlotError.ICC_MUTE, on=PC_to_RDR_XfrBlock, after=1))
    with pytest.raises((CardMute, ProtocolError)):
        answers(reader, bytes.fromhex("0010000034"))


# Extended APDUs by Escape ---------------------------------------------------------------------


T1_FAST = bytes.fromhex("3B808131FE65AB")
"""T=1 alone, IFSC 254."""
LONG = bytes(i * 7 & 255 for i in range(1500))
EXTENDED = CommandApdu(0, 0x30, data=LONG, ne=65536, extended=True).build()


def omnikey(
    escape: Any = None, *, reader: str = "076b:6622", counted: int = 1
) -> tuple[ccid.VirtualReader, Contact]:
    """A reader at short APDU level, and the contacts of its card. ``counted``: the blocks that the
    reader's own T=1 has exchanged."""
    card = EchoCard(T1_FAST)
    contact = Contact(card)
    contact.reset()
    for number in range(counted):
        block = bytes((0, 0x40 * (number & 1), 4)) + CASE_1
        contact.receive(block + lrc(block))
    made = virtual(reader, card=card, escape=escape or known_faults.blocks_by_escape(contact))
    return made, contact


@covers("tpdu-escape")
def test_extended_apdus_by_the_makers_escape(table: Table) -> None:
    table.without("076b:6622")
    with pytest.raises(UnsupportedByReader, match="short APDUs only"):
        answers(omnikey()[0], EXTENDED)
    table.as_it_is()
    for counted in (0, 1, 2):
        again = answers(omnikey(counted=counted)[0], EXTENDED, CASE_1, EXTENDED)
        assert again == [LONG + b"\x90\x00", b"\x90\x00", LONG + b"\x90\x00"]


def test_short_apdus_go_as_ever(table: Table) -> None:
    def refuses(data: bytes) -> bytes:
        raise AssertionError("no Escape for a short APDU")

    data = bytes(range(255))
    reader, _ = omnikey(refuses)
    assert answers(reader, CASE_1, b"\0\x20\0\0\xff" + data) == OK * 2


def test_with_t0_there_is_no_such_way(table: Table) -> None:
    with pytest.raises(UnsupportedByReader, match="short APDUs only"):
        answers(virtual("076b:6622", card=EchoCard(T0_ONLY), escape=lambda _: b""), EXTENDED)


@pytest.mark.parametrize("answer", [b"", b"\x1b\x00", b"\x1a", b"\x1a" + bytes(40)])
def test_a_reader_of_that_id_without_that_escape(table: Table, answer: bytes) -> None:
    """The card did not get the command, and the error names the reason."""
    heard: list[bytes] = []

    def escape(data: bytes) -> bytes:
        heard.append(data)
        return answer

    reader, _ = omnikey(escape)
    with pytest.raises(UnsupportedByReader, match="extended one"):
        answers(reader, EXTENDED)
    assert set(heard) == {bytes.fromhex("1A 00 C0 00 C0")}, "S(RESYNCH request) alone"


def test_the_error_of_a_reader_that_does_not_support_escapes(table: Table) -> None:
    reader = virtual("076b:6622", card=EchoCard(T1_FAST))
    with pytest.raises(UnsupportedByReader, match="extended one"):
        answers(reader, EXTENDED)
    assert answers(virtual("076b:6622", card=EchoCard(T1_FAST))) == OK


def test_a_pin_in_such_a_block_is_masked(table: Table) -> None:
    reader, _ = omnikey()
    pin = b"13579086"
    verify = CommandApdu(0, 0x20, 0, 0x81, data=pin + bytes(300), extended=True).build()
    with ccid.open_reader(reader) as opened, opened.slots[0].connect() as card:
        recorder = Recorder()
        with opened.trace(recorder):
            card.transmit(EXTENDED)
            card.transmit(verify)
    seen = b"".join(recorder.bulk)
    assert pin not in seen
    assert LONG[:100] not in seen, "an Escape may hold anything: nothing of it is shown"
