"""A card behind a connection: what a virtual reader does while the answer has not come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest

from ccid.codec.descriptors import ClassControl
from ccid.codec.messages import (
    MESSAGE_HEADER,
    PC_to_RDR_Abort,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_XfrBlock,
)
from ccid.codes import (
    ClassRequest,
    CommandStatus,
    ExchangeLevel,
    IccStatus,
    InterfaceProtocol,
    SlotError,
)
from ccid.errors import MalformedMessage
from ccid.virtual import make_descriptor
from ccid.virtual.cards.application import Answer, Mute
from ccid.virtual.ccid_function import LATE_LIMIT_S, CcidFunction
from ccid.virtual.iccd_function import IccdFunction
from ccid.virtual.vpcd_card import MAX_EXPECTED, RESPONSE_LIMIT_S, VpcdCard
from ccid.virtual.vpcd_messages import MAX_MESSAGE, Control, MessageStream, control, frame

ATR = bytes.fromhex("3B 95 13 81 01 80 73 FF 01 00 0B")
CHALLENGE = bytes.fromhex("0084000008")
RANDOM = bytes.fromhex("0102030405060708 9000")
POWERED = [control(Control.POWER_ON)]


class FakeLink:
    """A connection: what was sent, and what :meth:`wait` gives."""

    def __init__(self, answers: Iterable[bytes | None] = ()) -> None:
        self.sent: list[bytes] = []
        self.answers = list(answers)
        self.is_closed = False

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def wait(self, timeout_s: float) -> bytes | None:
        assert 0 < timeout_s < 3600
        return self.answers.pop(0)

    def close(self) -> None:
        self.is_closed = True


class Slot:
    """One virtual reader with a card behind a :class:`FakeLink`, and its time."""

    def __init__(self, level: ExchangeLevel = ExchangeLevel.SHORT_APDU) -> None:
        self.link = FakeLink()
        self.card = VpcdCard(ATR, self.link)
        self.function = CcidFunction(make_descriptor(level), [self.card])
        self.now = 0.0
        self.bSeq = 0
        assert self.function.slots[0].card is self.card
        self.command(PC_to_RDR_IccPowerOn(bPowerSelect=0))
        assert self.replies()[0][MESSAGE_HEADER:] == ATR
        assert self.link.sent == POWERED
        self.link.sent.clear()

    def command(self, message: object, **fields: int) -> None:
        self.bSeq += 1
        raw = bytearray(message.build())  # type: ignore[attr-defined]
        raw[6] = self.bSeq
        self.function.bulk_out(bytes(raw), self.now)

    def apdu(self, apdu: bytes = CHALLENGE) -> None:
        self.command(PC_to_RDR_XfrBlock(abData=apdu))

    def replies(self, until: float | None = None) -> list[bytes]:
        """The messages that the host can fetch by a time."""
        if until is not None:
            self.now = until
        got = []
        while (pulled := self.function.bulk_in.pull(1 << 17, self.now)) is not None:
            got.append(pulled[0])
        return got


def status(reply: bytes) -> tuple[int, int, int]:
    """bmCommandStatus, bmICCStatus and bError."""
    return reply[7] >> 6, reply[7] & 3, reply[8]


@pytest.mark.parametrize("level", [ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU])
def test_an_answer_that_comes_later(level: ExchangeLevel) -> None:
    slot = Slot(level)
    slot.apdu()
    assert slot.link.sent == [frame(CHALLENGE)]
    assert slot.replies() == []
    extensions = slot.replies(1.0)
    assert [status(reply)[0] for reply in extensions] == [CommandStatus.TIME_EXTENSION] * 2
    slot.card.take(RANDOM, 1.0)
    (reply,) = slot.replies()
    assert reply[MESSAGE_HEADER:] == RANDOM
    assert reply[6] == slot.bSeq
    assert status(reply) == (CommandStatus.PROCESSED, IccStatus.ACTIVE, 0)
    assert slot.function.bulk_in.is_silent
    slot.apdu()
    slot.card.take(b"\x90\x00", 1.0)
    assert slot.replies()[0][MESSAGE_HEADER:] == b"\x90\x00"


def test_a_long_answer_comes_in_parts() -> None:
    slot = Slot(ExchangeLevel.EXTENDED_APDU)
    slot.apdu()
    response = bytes(2000) + b"\x90\x00"
    slot.card.take(response, 0.0)
    (first,) = slot.replies()
    assert first[9] == 1
    slot.command(PC_to_RDR_XfrBlock(wLevelParameter=0x10))
    (last,) = slot.replies()
    assert last[9] == 2
    assert first[MESSAGE_HEADER:] + last[MESSAGE_HEADER:] == response


def test_no_answer_ever() -> None:
    slot = Slot()
    slot.apdu()
    assert slot.card.deadline == RESPONSE_LIMIT_S
    last = slot.replies(LATE_LIMIT_S)[-1]
    assert status(last) == (CommandStatus.FAILED, IccStatus.ACTIVE, SlotError.ICC_MUTE)
    slot.card.take(RANDOM, LATE_LIMIT_S + 1)
    assert slot.card.deadline is None


def test_the_card_is_removed_while_it_computes() -> None:
    slot = Slot()
    slot.apdu()
    slot.function.put(0, None, 0.1)
    slot.card.lose(0.1)
    (reply,) = slot.replies(0.1)
    assert status(reply) == (CommandStatus.FAILED, IccStatus.ABSENT, SlotError.ICC_MUTE)
    slot.command(PC_to_RDR_GetSlotStatus())
    assert status(slot.replies()[0])[:2] == (CommandStatus.PROCESSED, IccStatus.ABSENT)


def test_an_aborted_command_gets_no_answer_and_the_next_its_own() -> None:
    slot = Slot()
    slot.apdu()
    number = slot.bSeq + 1
    slot.function.control(ClassControl(0x21, ClassRequest.ABORT, number << 8, 0), b"", 0.1)
    (reply,) = slot.replies(0.1)
    assert status(reply)[2] == SlotError.CMD_ABORTED
    slot.command(PC_to_RDR_Abort())
    assert status(slot.replies()[0])[0] == CommandStatus.PROCESSED
    slot.apdu()
    slot.card.take(b"\x6f\x00", 0.2)  # to the aborted command
    assert slot.replies(0.2) == []
    slot.card.take(RANDOM, 0.3)
    assert slot.replies(0.3)[-1][MESSAGE_HEADER:] == RANDOM


def test_power() -> None:
    slot = Slot()
    slot.command(PC_to_RDR_IccPowerOn(bPowerSelect=0))
    slot.command(PC_to_RDR_IccPowerOff())
    slot.command(PC_to_RDR_IccPowerOff())
    slot.command(PC_to_RDR_IccPowerOn(bPowerSelect=0))
    codes = (Control.RESET, Control.POWER_OFF, Control.POWER_ON)
    assert slot.link.sent == [control(code) for code in codes]


def test_a_lost_card_is_mute() -> None:
    slot = Slot()
    slot.card.lose(0.0)
    slot.apdu()
    assert status(slot.replies()[0])[2] == SlotError.ICC_MUTE
    slot.command(PC_to_RDR_IccPowerOn(bPowerSelect=0))
    assert status(slot.replies()[0]) == (
        CommandStatus.FAILED,
        IccStatus.INACTIVE,
        SlotError.ICC_MUTE,
    )
    assert slot.link.sent == []


@pytest.mark.parametrize("apdu", [b"", b"\x01", bytes(MAX_MESSAGE + 1)])
def test_an_apdu_that_no_message_holds(apdu: bytes) -> None:
    link = FakeLink()
    card = VpcdCard(ATR, link)
    assert card.begin(apdu, 0.0, never) == Answer(sw=0x6700)
    assert card.transmit(apdu) == Answer(sw=0x6700)
    assert link.sent == []


def never(answer: Answer | None, now: float) -> None:
    raise AssertionError("no answer is to come later")


def test_answers_without_a_question() -> None:
    card = VpcdCard(ATR, FakeLink())
    with pytest.raises(MalformedMessage, match="without a command"):
        card.take(RANDOM, 0.0)


def test_an_answer_without_status_bytes() -> None:
    card = VpcdCard(ATR, FakeLink())
    card.begin(CHALLENGE, 0.0, never)
    with pytest.raises(MalformedMessage, match="1 bytes"):
        card.take(b"\x90", 0.0)


def test_cancelled_commands_do_not_add_up_for_ever() -> None:
    link = FakeLink()
    card = VpcdCard(ATR, link)
    for _ in range(MAX_EXPECTED):
        assert card.begin(CHALLENGE, 0.0, never) is None
    with pytest.raises(Mute):
        card.begin(CHALLENGE, 0.0, never)
    assert len(link.sent) == MAX_EXPECTED


# On the contacts, where the card waits ----------------------------------------------------------


def test_waiting_for_the_answer() -> None:
    card = VpcdCard(ATR, FakeLink([RANDOM]))
    assert card.transmit(CHALLENGE).apdu == RANDOM
    assert not card.is_lost


@pytest.mark.parametrize("answer", [None, b"\x90"])
def test_waiting_in_vain(answer: bytes | None) -> None:
    link = FakeLink([answer])
    card = VpcdCard(ATR, link)
    with pytest.raises(Mute):
        card.transmit(CHALLENGE)
    assert card.is_lost
    assert link.is_closed


@pytest.mark.parametrize("level", [ExchangeLevel.TPDU, ExchangeLevel.CHARACTER])
def test_a_mute_card_at_tpdu_and_character_level(level: ExchangeLevel) -> None:
    slot = Slot(level)
    slot.link.answers = [None]
    block = bytes.fromhex("00 00 05 00 84 00 00 08 89")
    message = PC_to_RDR_XfrBlock(abData=block, wLevelParameter=3 * (level == 0))
    slot.function.slots[0].wire.contact.protocol = 1  # type: ignore[union-attr]
    slot.function.slots[0].wire.fresh = False  # type: ignore[union-attr]
    slot.function.slots[0].reset_parameters()
    slot.function.slots[0].use(slot.function.slots[0].parameters[1])  # type: ignore[index]
    slot.command(message)
    reply = slot.replies(math.inf)[-1]
    assert status(reply)[::2] == (CommandStatus.FAILED, SlotError.ICC_MUTE)


# A card that is a USB device itself -------------------------------------------------------------


def iccd_b(link: FakeLink) -> tuple[IccdFunction, Callable[[], bytes]]:
    function = IccdFunction(InterfaceProtocol.ICCD_B, VpcdCard(ATR, link))

    def data_block() -> bytes:
        return function.control(ClassControl(0xA1, 0x6F, 0, 0, 300), b"", 1.0)

    function.control(ClassControl(0x21, 0x62, 0, 0), b"", 0.0)
    assert data_block()[1:] == ATR
    return function, data_block


def test_an_iccd_is_busy_until_the_answer_comes() -> None:
    link = FakeLink()
    function, data_block = iccd_b(link)
    function.control(ClassControl(0x21, 0x65, 0, 0), CHALLENGE, 1.0)
    assert data_block()[0] == 0x80
    card = function.slots[0].card
    assert isinstance(card, VpcdCard)
    card.take(RANDOM, 1.0)
    assert data_block() == b"\x00" + RANDOM


def test_an_iccd_whose_card_is_lost() -> None:
    function, data_block = iccd_b(FakeLink())
    function.control(ClassControl(0x21, 0x65, 0, 0), CHALLENGE, 1.0)
    card = function.slots[0].card
    assert isinstance(card, VpcdCard)
    card.lose(1.0)
    assert data_block()[2] == SlotError.ICC_MUTE


def test_what_the_card_sends_is_well_formed() -> None:
    slot = Slot()
    slot.apdu()
    slot.card.take(RANDOM, 0.0)
    slot.command(PC_to_RDR_IccPowerOff())
    contents = list(MessageStream().feed(b"".join(slot.link.sent)))
    assert contents == [CHALLENGE, bytes((Control.POWER_OFF,))]
