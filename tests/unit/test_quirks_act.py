"""Each quirk on a virtual reader with the fault: the reader fails without the quirk and works with
the quirk. In this file: opening, presence, several interfaces; and every quirk has such a test."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_GetSlotStatus, PC_to_RDR_IccPowerOn, PC_to_RDR_XfrBlock
from ccid.codes import ExchangeLevel, IccStatus, SlotError
from ccid.device.verdict import Level, judge
from ccid.errors import (
    CardAbsent,
    CcidError,
    CommandFailed,
    ReaderUnsupported,
    TransportTimeout,
    UnsupportedByReader,
)
from ccid.known.quirks import VOCABULARY
from ccid.link.slot_commands import SlotCommands
from ccid.probe import doctor_command
from ccid.transport import linux
from ccid.virtual import EchoCard, faults, known_faults, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from tests.unit.quirk_bench import CASE_1, Table, answers, covered, covers, virtual

OK = [b"\x90\x00"]
IMPATIENT_S = 0.4
"""Time limit in seconds for commands that are never answered."""


def test_every_quirk_has_a_test() -> None:
    for file in sorted(Path(__file__).parent.glob("test_quirks_act*.py")):
        importlib.import_module(f"tests.unit.{file.stem}")
    importlib.import_module("tests.unit.test_pin")
    importlib.import_module("tests.unit.test_gadgets")
    assert covered.keys() == VOCABULARY.keys()


def test_where_a_quirk_acts_is_asked_for_it() -> None:
    """The module that the vocabulary names reads the quirk."""
    for quirk in VOCABULARY.values():
        file = importlib.import_module(quirk.where).__file__
        assert file is not None
        assert f"quirks.{quirk.field}" in Path(file).read_text(), quirk.name


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter time limit for GetSlotStatus, so that failures come soon."""
    monkeypatch.setattr(SlotCommands, "status_timeout_s", 0.05)


# Supported or not -----------------------------------------------------------------------------


@covers("min-bcdDevice")
def test_firmware_that_is_too_old(table: Table) -> None:
    def acr122u(bcdDevice: int, broken: bool) -> ccid.VirtualReader:
        reader = virtual("072f:2200", bcdDevice=bcdDevice)
        if broken:
            reader.faults.append(faults.failing(SlotError.HW_ERROR, on=PC_to_RDR_XfrBlock))
        return reader

    table.without("072f:2200")
    with pytest.raises(CommandFailed):
        answers(acr122u(0x0205, broken=True))
    table.as_it_is()
    with pytest.raises(ReaderUnsupported, match=r"firmware 2\.05 has faults that 2\.06 mends"):
        answers(acr122u(0x0205, broken=True))
    assert answers(acr122u(0x0206, broken=False)) == OK
    assert answers(acr122u(0x0205, broken=False), old_firmware=True) == OK
    assert judge(acr122u(0x0205, broken=False).info, old_firmware=True).level is Level.LIMITS


@covers("needs-mode-switch")
def test_a_device_that_has_to_be_switched(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "identities", lambda: [("1-1", 0x0D46, 0x4081)])

    def troubles() -> list[dict[str, str]]:
        machine = doctor_command.Patient("this machine", "", "")
        doctor_command._look_for_unswitched(machine, set())
        return machine.troubles

    table.without("0d46:4081")
    assert not troubles(), "nobody tells why there is no reader"
    table.as_it_is()
    assert "has to be switched" in troubles()[0]["trouble"]


@covers("autosuspend-breaks")
def test_a_reader_that_must_not_sleep(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "attribute", lambda *_: "auto")

    def troubles() -> list[dict[str, str]]:
        reader = doctor_command.Patient("", "", "")
        doctor_command._power(reader, virtual("058f:9520", bcdDevice=0x0102).info)
        return reader.troubles

    table.without("058f:9520")
    assert not troubles(), "nobody tells why it dies"
    table.as_it_is()
    assert "does not survive" in troubles()[0]["trouble"]


# Opening --------------------------------------------------------------------------------------


@covers("open-delay-s")
@pytest.mark.usefixtures("impatient")
def test_a_reader_that_a_command_too_soon_hangs(table: Table) -> None:
    def starting() -> ccid.VirtualReader:
        reader = virtual("0b81:0200")
        reader.faults.append(known_faults.hangs_before(reader.port.now() + 0.1))
        return reader

    table.without("0b81:0200")
    with pytest.raises(TransportTimeout):
        answers(starting())
    table.only("0b81:0200", "open-delay-s = 0.2")
    assert answers(starting()) == OK


@covers("first-timeout-s")
@pytest.mark.usefixtures("impatient")
def test_a_reader_that_is_slow_at_first(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccid.device.first_commands.WAKING_S", 0.15)

    def starting() -> ccid.VirtualReader:
        reader = virtual("04e6:5790")
        reader.faults.append(known_faults.slow_to_start(reader.port.now() + 0.3))
        return reader

    table.without("04e6:5790")
    with pytest.raises(TransportTimeout):
        answers(starting())
    table.only("04e6:5790", "first-timeout-s = 12")
    assert answers(starting()) == OK


@covers("status-timeout-s")
@pytest.mark.usefixtures("impatient")
def test_a_reader_that_looks_for_a_card_before_it_answers(table: Table) -> None:
    def contactless() -> ccid.VirtualReader:
        reader = virtual("04e6:5293")
        reader.faults.append(faults.late(0.15, on=PC_to_RDR_GetSlotStatus, times=None))
        return reader

    table.without("04e6:5293")
    with pytest.raises(TransportTimeout):
        answers(contactless())
    table.only("04e6:5293", "status-timeout-s = 0.4")
    assert answers(contactless()) == OK


@covers("drain-before-write-s")
@pytest.mark.usefixtures("impatient")
def test_a_reader_with_stray_empty_packets(table: Table) -> None:
    def usb3() -> ccid.VirtualReader:
        reader = virtual("08e6:3437", bcdDevice=0x0200)
        reader.faults.append(known_faults.stray_empty_packets())
        return reader

    table.without("08e6:3437")
    with pytest.raises(TransportTimeout):
        answers(usb3(), max_command_s=IMPATIENT_S)
    table.as_it_is()
    assert answers(usb3(), CASE_1, CASE_1, CASE_1) == OK * 3


def test_only_that_reader_pays_for_it(table: Table) -> None:
    from ccid.transport.draining import Draining

    for bcdDevice, drains in ((0x0200, True), (0x0201, False)):
        with ccid.open_reader(virtual("08e6:3437", bcdDevice=bcdDevice)) as reader:
            assert isinstance(reader.transport, Draining) is drains


def test_draining_and_tracing_at_once(table: Table, tmp_path: Path) -> None:
    reader = virtual("08e6:3437", bcdDevice=0x0200)
    reader.faults.append(known_faults.stray_empty_packets())
    with ccid.open_reader(reader) as opened, opened.trace(str(tmp_path / "trace.pcapng")):
        with opened.slots[0].connect() as card:
            assert card.transmit(CASE_1) == b"\x90\x00"


@covers("event-before-status-s")
@pytest.mark.usefixtures("impatient")
def test_a_reader_whose_event_has_to_be_fetched(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sec1100() -> ccid.VirtualReader:
        reader = virtual("0424:1104")
        reader.functions[0].notice_s = 0.005
        reader.faults.append(known_faults.waits_for_its_event())
        return reader

    def status_after_an_event() -> IccStatus:
        reader = sec1100()
        with ccid.open_reader(reader) as opened:
            opened.transport.take_events()
            reader.insert(EchoCard())
            return opened.slots[0].status()

    monkeypatch.setattr("ccid.link.slot_commands.MACOS", True)
    table.without("0424:1104")
    with pytest.raises(TransportTimeout):
        status_after_an_event()
    table.as_it_is()
    assert status_after_an_event() is IccStatus.INACTIVE
    monkeypatch.setattr("ccid.link.slot_commands.MACOS", False)
    with pytest.raises(TransportTimeout):
        status_after_an_event()


@covers("apdu-mode-escape")
def test_a_reader_that_is_switched_to_apdus(table: Table) -> None:
    """At TPDU level a program must fetch the response data. APDU level helps a program that does
    not."""
    case_4 = bytes.fromhex("0030000003 010203 00")

    def twin() -> ccid.VirtualReader:
        reader = virtual("08e6:3437", ExchangeLevel.TPDU, EchoCard(bytes.fromhex("3B00")))

        def escape(data: bytes) -> bytes:
            assert data == b"\x1f\x02"
            reader.functions[0].descriptor = make_descriptor(ExchangeLevel.SHORT_APDU)
            return b"\0"

        reader.functions[0].escape = escape
        return reader

    assert answers(twin(), case_4) == [b"\x61\x03"]
    table.without("08e6:3437")
    with pytest.raises(UnsupportedByReader, match="no Escape is known"):
        answers(twin(), case_4, apdu_mode=True)
    table.as_it_is()
    assert answers(twin(), case_4, apdu_mode=True) == [b"\1\2\3\x90\x00"]


def test_a_switch_that_fails_is_told(table: Table) -> None:
    with pytest.raises(UnsupportedByReader):
        ccid.open_reader(virtual("08e6:3437"), apdu_mode=True)


# Several interfaces ---------------------------------------------------------------------------


def composite(
    reader: str, count: int, *, cards: dict[int, EchoCard] | None = None, numbers: Any = ()
) -> ccid.VirtualReader:
    """A virtual reader with several interfaces; each has a card, unless the caller says
    otherwise."""
    inside = {i: EchoCard() for i in range(count)} if cards is None else cards
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU)
    vendor_id, product_id = (int(part, 16) for part in reader.split(":"))
    return ccid.VirtualReader(
        functions=[CcidFunction(descriptor, [inside.get(i)]) for i in range(count)],
        numbers=numbers,
        vendor_id=vendor_id,
        product_id=product_id,
    )


@covers("composite-interfaces")
@pytest.mark.usefixtures("impatient")
def test_interfaces_that_are_no_slots(table: Table) -> None:
    """Beside its slots the device has an interface that looks like a slot and never answers."""

    def prox() -> ccid.VirtualReader:
        reader = composite("08e6:5503", 3)
        reader.functions[0].faults.append(faults.silence(times=None))
        return reader

    table.without("08e6:5503")
    with pytest.raises(TransportTimeout):
        ccid.open_composite(prox())
    table.as_it_is()
    with ccid.open_composite(prox()) as reader:
        assert [slot.reader.info.interface_number for slot in reader.slots] == [1, 2]
        for slot in reader.slots:
            with slot.connect() as card:
                assert card.transmit(CASE_1) == b"\x90\x00"


@covers("interfaces-take-turns")
def test_interfaces_that_must_take_turns(table: Table) -> None:
    slowly = bytes.fromhex("0050 0096")  # 150 ms

    def both_at_once() -> list[bytes | CcidError]:
        virtual = composite("08e6:5503", 2, numbers=(1, 2))
        one, two = virtual.functions
        one.faults.append(known_faults.hangs_beside(two))
        two.faults.append(known_faults.hangs_beside(one))
        found: list[bytes | CcidError] = []
        together = threading.Barrier(2)

        def talk(card: ccid.Card) -> None:
            together.wait()
            try:
                found.append(card.transmit(slowly))
            except CcidError as error:
                found.append(error)

        with ccid.open_composite(virtual, max_command_s=1.0) as reader:
            cards = [slot.connect() for slot in reader.slots]
            threads = [threading.Thread(target=talk, args=(card,)) for card in cards]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return found

    table.without("08e6:5503")
    assert any(isinstance(one, TransportTimeout) for one in both_at_once())
    table.as_it_is()
    assert both_at_once() == OK * 2


@covers("presence-of-interface")
def test_an_interface_without_card_detector(table: Table) -> None:
    """The interface always says that no card is there; the interface beside it has the detector."""

    def sec1210(cards: dict[int, EchoCard]) -> ccid.VirtualReader:
        reader = composite("0424:1202", 2, cards=cards)
        blind = faults.failing(
            SlotError.ICC_MUTE, IccStatus.ABSENT, on=PC_to_RDR_GetSlotStatus, times=None
        )
        reader.functions[1].faults.append(blind)
        return reader

    both = {0: EchoCard(), 1: EchoCard()}
    table.without("0424:1202")
    with ccid.open_composite(sec1210(both)) as reader, pytest.raises(CardAbsent):
        reader.slots[1].connect()
    table.as_it_is()
    with ccid.open_composite(sec1210(both)) as reader:
        assert reader.slots[1].status() is IccStatus.INACTIVE
        with reader.slots[1].connect() as card:
            assert card.transmit(CASE_1) == b"\x90\x00"
    with ccid.open_composite(sec1210({1: EchoCard()})) as reader:
        assert reader.slots[1].status() is IccStatus.ABSENT
    with ccid.open_reader(sec1210(both).infos[1]) as alone:
        assert alone.slots[0].status() is IccStatus.ABSENT, "nobody to ask"


def test_the_detector_closes_first(table: Table) -> None:
    virtual = composite("0424:1202", 2)
    with ccid.open_reader(virtual.infos[1]) as two:
        with ccid.open_reader(virtual.infos[0]):
            virtual.remove(interface=0)
            assert two.slots[0].status() is IccStatus.ABSENT
        assert two.slots[0].status() is IccStatus.INACTIVE, "its own word again"


# Presence and power ---------------------------------------------------------------------------


@covers("presence-by-power")
def test_a_slot_that_does_not_tell_whether_a_card_is_in(table: Table) -> None:
    def sim_pro() -> ccid.VirtualReader:
        reader = virtual("08e6:3480", bcdDevice=0x0100)
        reader.faults.append(
            faults.failing(
                SlotError.ICC_MUTE, IccStatus.ABSENT, on=PC_to_RDR_GetSlotStatus, times=None
            )
        )
        return reader

    table.without("08e6:3480")
    with pytest.raises(CardAbsent):
        answers(sim_pro())
    table.as_it_is()
    assert answers(sim_pro()) == OK
    reader = sim_pro()
    with ccid.open_reader(reader) as opened:
        (slot,) = opened.slots
        card = reader.remove()
        assert card is not None
        assert slot.status() is IccStatus.INACTIVE, "as far as is known"
        with pytest.raises(CcidError):
            slot.connect()
        assert slot.status() is IccStatus.ABSENT
        reader.insert(card)
        with slot.connect():
            assert slot.status() is IccStatus.ACTIVE
        assert slot.status() is IccStatus.INACTIVE


@covers("power-off-before-on")
def test_a_card_that_comes_up_from_off_alone(table: Table) -> None:
    def id_token() -> ccid.VirtualReader:
        reader = virtual("0d46:301d")
        reader.faults.append(known_faults.only_from_off())
        return reader

    def power_ons() -> int:
        """The power-ons of a connection and of a reset."""
        token = id_token()
        with ccid.open_reader(token) as reader, reader.slots[0].connect() as card:
            card.reset()
            assert card.transmit(CASE_1) == b"\x90\x00"
        return token.functions[0].slots[0].power_ons

    table.without("0d46:301d")
    assert power_ons() == 4, "each needs a second try"
    table.as_it_is()
    assert power_ons() == 2


@covers("power-on-escape", "power-on-escape-bError")
def test_a_reader_in_another_mode(table: Table) -> None:
    def gempc433(bError: int) -> ccid.VirtualReader:
        reader = virtual("08e6:4433", escape=lambda _: b"\0")
        reader.faults.append(known_faults.needs_escape(b"\x1f\x01", bError))
        return reader

    table.without("08e6:4433")
    with pytest.raises(CommandFailed):
        answers(gempc433(0xBB))
    table.as_it_is()
    assert answers(gempc433(0xBB)) == OK
    with pytest.raises(CommandFailed):
        answers(gempc433(0xBC))


@covers("power-on-voltage")
def test_a_card_that_the_usual_voltage_stuns(table: Table) -> None:
    def stunned() -> ccid.VirtualReader:
        fields = {"dwFeatures": 0x00020030, "bVoltageSupport": 0x07}
        reader = virtual("08e6:3437", fields=fields)
        reader.faults.append(known_faults.latches_up_at(1))
        return reader

    with pytest.raises(CcidError):
        answers(stunned())
    table.only("08e6:3437", 'power-on-voltage = "3V"')
    assert answers(stunned()) == OK


def test_a_reader_that_claims_to_find_the_voltage(table: Table) -> None:
    table.only("1209:0001", 'power-on-voltage = "1.8V"')
    reader = virtual("1209:0001")
    selects: list[int] = []

    def note(_f: CcidFunction, command: bytes, said: list[Any]) -> list[Any]:
        selects.append(command[7])
        return said

    reader.faults.append(faults.Fault(note, on=PC_to_RDR_IccPowerOn, times=None))
    assert answers(reader) == OK
    assert selects == [3]


def test_the_platform_is_found_out() -> None:
    from ccid.link import slot_commands as commands

    assert commands.MACOS is (sys.platform == "darwin")
