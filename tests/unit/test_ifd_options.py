"""The options in ifdDriverOptions, and slots with the quirk ``presence-by-power``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_GetSlotStatus, PC_to_RDR_IccPowerOn
from ccid.codes import ExchangeLevel, Features, IccStatus, PowerSelect, SlotError, VoltageSupport
from ccid.device.control import ControlCode
from ccid.pcsc.ifd import Action, Code, IFDHandler, channel
from ccid.pcsc.plug.plist_options import Options
from ccid.session.negotiation import power_selects
from ccid.virtual import EchoCard, faults, make_descriptor
from tests.pin_pad import PIN, PinPad
from tests.unit.quirk_bench import Table, virtual
from tests.unit.test_control import verify_structure

LUN = 0
CASE_4 = bytes.fromhex("0030000003010203FF")
HOST_CHOOSES = {"dwFeatures": Features.AUTO_PPS | ExchangeLevel.SHORT_APDU, "bVoltageSupport": 7}
V5, V3, V1_8, AUTOMATIC = (
    PowerSelect.V5_0, PowerSelect.V3_0, PowerSelect.V1_8, PowerSelect.AUTOMATIC,
)  # fmt: skip


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Table:
    return Table(monkeypatch, tmp_path)


@pytest.fixture
def handlers() -> Iterator[list[IFDHandler]]:
    made: list[IFDHandler] = []
    yield made
    for one in made:
        one.close()


@pytest.fixture
def opened(handlers: list[IFDHandler]) -> Any:
    """A handler with these options, after it opened the reader; and the response code of that."""

    def make(reader: ccid.VirtualReader, bits: int = 0) -> tuple[IFDHandler, Code]:
        handler = IFDHandler(find=lambda *_: reader.info, **asdict(Options.of(bits)))
        handlers.append(handler)
        return handler, handler.create_channel_by_name(LUN, "virtual:")

    return make


def spy(reader: ccid.VirtualReader) -> list[int]:
    """The bPowerSelect values that the reader receives, in their order."""
    seen: list[int] = []

    def note(_function: Any, command: bytes, said: Any) -> Any:
        seen.append(command[7])
        return said

    reader.faults.append(faults.Fault(note, on=PC_to_RDR_IccPowerOn, times=None))
    return seen


# The bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "options"),
    [
        (0x00, Options()),
        (0x01, Options(escape=True)),
        (0x02, Options(apdu_mode=True)),
        (0x04, Options(old_firmware=True)),
        (0x10, Options(first_voltage=V3)),
        (0x20, Options(first_voltage=V1_8)),
        (0x30, Options(first_voltage=AUTOMATIC)),
        (0x40, Options(no_retry_counter=True)),
        (0xFF08, Options()),
        (0x77, Options(True, True, True, AUTOMATIC, True)),
    ],
)
def test_bits(bits: int, options: Options) -> None:
    assert Options.of(bits) == options


@pytest.mark.parametrize(
    ("wished", "support", "order"),
    [
        (None, 7, [V5, V1_8, V3]),
        (V5, 7, [V5, V1_8, V3]),
        (V3, 7, [V3, V5, V1_8]),
        (V1_8, 7, [V1_8, V3, V5]),
        (AUTOMATIC, 7, [AUTOMATIC, V5, V1_8, V3]),
        (V3, 1, [V5]),
        (V1_8, 3, [V5, V3]),
        (V3, 0, [V5]),
    ],
)
def test_the_first_voltage(
    wished: PowerSelect | None, support: int, order: list[PowerSelect]
) -> None:
    fields: dict[str, int] = HOST_CHOOSES | {"bVoltageSupport": support}
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, **fields)
    assert power_selects(descriptor, None, wished) == order
    itself = make_descriptor(ExchangeLevel.SHORT_APDU, bVoltageSupport=support)
    assert power_selects(itself, None, wished) == [AUTOMATIC], "the reader chooses"
    assert power_selects(descriptor, V1_8, wished)[0] is V1_8, "what the table says goes first"


@pytest.mark.parametrize(("bits", "sent"), [(0x00, [1]), (0x10, [2]), (0x20, [3]), (0x30, [0, 1])])
def test_the_first_voltage_on_the_wire(opened: Any, bits: int, sent: list[int]) -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, **HOST_CHOOSES)
    reader = ccid.VirtualReader(EchoCard(), descriptor=descriptor)
    seen = spy(reader)
    handler, _ = opened(reader, bits)
    assert handler.power_icc(LUN, Action.POWER_UP)[0] is Code.SUCCESS
    assert seen == sent


def test_the_first_voltage_in_the_library() -> None:
    card = EchoCard()
    card.voltages = VoltageSupport.V5_0
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, **HOST_CHOOSES)
    reader = ccid.VirtualReader(card, descriptor=descriptor)
    seen = spy(reader)
    with ccid.open_reader(reader, first_voltage=V1_8) as one, one.slots[0].connect() as connected:
        assert connected.transmit(CASE_4) == b"\1\2\3\x90\x00"
    assert seen == [3, 2, 1]


def test_old_firmware(opened: Any) -> None:
    for bits, code in ((0, Code.COMMUNICATION_ERROR), (4, Code.SUCCESS)):
        assert opened(virtual("072f:2200", bcdDevice=0x0205), bits)[1] is code


@pytest.mark.parametrize(
    ("model", "bit", "sent"), [("08e6:3437", 0x02, "1f02"), ("0982:0008", 0x40, "b500")]
)
def test_escapes_on_the_users_wish(
    opened: Any, model: str, bit: int, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escapes go only to readers that have them in the table; a reader that refuses one is opened
    without it."""
    monkeypatch.setattr("time.sleep", lambda _: None)  # open-delay-s
    for bits, there in ((0, False), (bit, True)):
        seen: list[str] = []
        reader = virtual(model)
        reader.functions[0].escape = lambda data, seen=seen: seen.append(data.hex()) or b"\0"
        assert opened(reader, bits)[1] is Code.SUCCESS
        assert (sent in seen) == there
    handler, code = opened(virtual(model), bit)
    assert code is Code.SUCCESS
    assert handler.last_error is not None, "for the log"
    other = virtual("096e:0503", escape=lambda data: pytest.fail("nothing is to be sent"))
    assert opened(other, 0x42)[1] is Code.SUCCESS


def test_switched_to_apdus(opened: Any) -> None:
    reader = virtual("08e6:3437", ExchangeLevel.TPDU)

    def escape(data: bytes) -> bytes:
        if data == b"\x1f\x02":
            reader.functions[0].descriptor = make_descriptor(ExchangeLevel.SHORT_APDU)
        return b"\0"

    reader.functions[0].escape = escape
    handler, _ = opened(reader, 0x02)
    assert handler.power_icc(LUN, Action.POWER_UP)[0] is Code.SUCCESS
    assert handler.set_protocol_parameters(LUN, 1) is Code.SUCCESS
    assert handler.transmit_to_icc(LUN, 0, CASE_4) == (Code.SUCCESS, b"\1\2\3\x90\x00")


# A slot that does not tell --------------------------------------------------------------------


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(channel, "time", made)
    return made


def sim_pro(card: EchoCard | None) -> ccid.VirtualReader:
    """A reader that answers ABSENT with and without a card."""
    reader = virtual("08e6:3480", card=card, interrupt=False)
    mute = faults.failing(
        SlotError.ICC_MUTE, IccStatus.ABSENT, on=PC_to_RDR_GetSlotStatus, times=None
    )
    reader.faults.append(mute)
    return reader


def test_a_card_is_found_by_trying(opened: Any, clock: Clock) -> None:
    """pcscd does not power an empty slot, so the presence query tries to power it now and then."""
    reader = sim_pro(None)
    handler, _ = opened(reader)
    seen = spy(reader)
    assert not handler.has_events(LUN), "it has to be asked"
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT, "until a power-up fails"
    assert handler.power_icc(LUN, Action.POWER_UP) == (Code.ERROR_POWER_ACTION, b"")
    for _ in range(5):
        assert handler.icc_presence(LUN) is Code.ICC_NOT_PRESENT
    assert len(seen) == 1, "not at every question"
    reader.insert(EchoCard())
    assert handler.icc_presence(LUN) is Code.ICC_NOT_PRESENT
    clock.now += channel.SEEK_S
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT
    assert not reader.functions[0].slots[0].powered, "its power is for others to ask for"
    assert handler.power_icc(LUN, Action.POWER_UP) == (Code.SUCCESS, EchoCard.atr)
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT
    assert len(seen) == 3


def test_a_card_that_is_gone_is_seen_when_it_is_wanted(opened: Any, clock: Clock) -> None:
    reader = sim_pro(EchoCard())
    handler, _ = opened(reader)
    assert handler.power_icc(LUN, Action.POWER_UP)[0] is Code.SUCCESS
    card = reader.remove()
    assert card is not None
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT, "as far as is known"
    assert handler.transmit_to_icc(LUN, 1, CASE_4)[0] is not Code.SUCCESS
    assert handler.power_icc(LUN, Action.RESET) == (Code.ERROR_POWER_ACTION, b"")
    assert handler.icc_presence(LUN) is Code.ICC_NOT_PRESENT
    reader.insert(card)
    clock.now += channel.SEEK_S
    assert handler.icc_presence(LUN) is Code.ICC_PRESENT


def test_other_slots_are_not_tried(opened: Any, clock: Clock) -> None:
    reader = virtual("096e:0503", card=None)
    seen = spy(reader)
    handler, _ = opened(reader)
    for _ in range(3):
        clock.now += channel.SEEK_S
        assert handler.icc_presence(LUN) is Code.ICC_NOT_PRESENT
    assert seen == []


# A PIN --------------------------------------------------------------------------------------


def test_a_pin_before_any_protocol(opened: Any) -> None:
    """After a refused T=1 pcscd uses T=0 and sets no protocol. The PIN command then agrees on a
    protocol first, so that a later command does not find a card without agreement."""
    descriptor = make_descriptor(ExchangeLevel.TPDU, dwProtocols=1, bPINSupport=3)
    reader = ccid.VirtualReader(functions=[PinPad(descriptor, [[PIN]])])
    handler, _ = opened(reader)
    assert handler.power_icc(LUN, Action.POWER_UP)[0] is Code.SUCCESS
    assert handler.set_protocol_parameters(LUN, 2) is Code.ERROR_NOT_SUPPORTED
    said = handler.control(LUN, ControlCode.VERIFY_PIN_DIRECT, verify_structure(), 300)
    assert said == (Code.SUCCESS, b"\x90\x00")
    said = handler.transmit_to_icc(LUN, 0, bytes.fromhex("00A4000C023F00"))
    assert said == (Code.SUCCESS, b"\x90\x00")
