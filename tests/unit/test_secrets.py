"""The data that a trace shows, message by message."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest

import ccid
from ccid.codec.messages import (
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_Secure,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_DataBlock,
)
from ccid.codes import Chain, ExchangeLevel, Level, Protocol
from ccid.errors import CommandFailed, TransportTimeout
from ccid.iso7816.apdu import Bytes, CommandApdu
from ccid.iso7816.error_detection import lrc
from ccid.link.slot_commands import Commands
from ccid.masking.censor import MASK, Censor
from ccid.masking.exchange_watch import Framing, T1Watch, framings
from ccid.masking.secret_commands import Secrecy, carries_secret
from ccid.session.exchange import agreement
from ccid.virtual import Answer, EchoCard, faults, make_descriptor
from tests.unit.test_trace import PIN, VERIFY, Recorder, exposed

APDU, T0, T1 = ((framing,) for framing in Framing)
SELECT = bytes.fromhex("00A40400")
ENVELOPE = bytes.fromhex("00C2000020")
GET_RESPONSE = bytes.fromhex("00C0000010")


class Wire:
    """Passes messages through a censor, and returns the masked data."""

    def __init__(self, kind: tuple[Framing, ...] = APDU) -> None:
        self.censor = Censor()
        self.kind = kind
        self.seq = -1

    def out(self, data: Bytes, level: int = Level.WHOLE) -> bytes:
        self.seq += 1
        block = PC_to_RDR_XfrBlock(bSeq=self.seq & 0xFF, wLevelParameter=level, abData=bytes(data))
        return self.censor.command(block.build(), self.kind)[10:]

    def back(self, data: bytes, chain: int = Chain.WHOLE, seq: int | None = None) -> bytes:
        bSeq = self.seq if seq is None else seq
        block = RDR_to_PC_DataBlock(bSeq=bSeq, bChainParameter=chain, abData=data)
        return self.censor.reply(block.build())[10:]


def stars(count: int) -> bytes:
    return bytes([MASK]) * count


# Replies --------------------------------------------------------------------------------------


def test_a_late_answer_is_judged_by_its_command() -> None:
    wire = Wire()
    wire.out(VERIFY)
    wire.out(SELECT)
    assert wire.back(PIN, seq=0) == stars(8)
    assert wire.back(b"data\x90\x00") == b"data\x90\x00"


def test_a_late_answer_without_a_secret_is_shown() -> None:
    wire = Wire()
    wire.out(SELECT)
    wire.out(VERIFY)
    assert wire.back(b"data\x90\x00", seq=0) == b"data\x90\x00"
    assert wire.back(PIN + b"\x90\x00") == stars(8) + b"\x90\x00"


def test_an_answer_to_what_passed_before_the_trace_is_masked() -> None:
    wire = Wire()
    assert wire.back(PIN, seq=200) == stars(8)
    wire.out(SELECT)
    assert wire.back(PIN, seq=200) == stars(8)


def test_an_atr_is_shown() -> None:
    wire = Wire()
    wire.censor.command(PC_to_RDR_IccPowerOn(bSeq=9).build(), APDU)
    assert wire.back(b"\x3b\x00", seq=9) == b"\x3b\x00"


def test_a_late_answer_in_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaky(EchoCard):
        def process(self, command: CommandApdu) -> Answer:
            return Answer(command.data) if command.ins == 0x20 else super().process(command)

    recorder, virtual = Recorder(), ccid.VirtualReader(Leaky())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        monkeypatch.setattr(agreement, "exchange_timeout", lambda *_: 0.2)
        virtual.faults.append(faults.late(0.9, on=PC_to_RDR_XfrBlock))
        with pytest.raises(TransportTimeout):
            card.transmit(VERIFY + b"\0")
        with reader.trace(recorder):  # the late answer comes into a trace that began later
            monkeypatch.setattr(agreement, "exchange_timeout", lambda *_: 3.0)
            card.transmit(bytes.fromhex("0050 0320"))
    assert any(len(message) == 20 for message in recorder.bulk), "the late answer"
    assert exposed(b"".join(recorder.bulk)) == []


@pytest.mark.parametrize("chain", [Chain.BEGINS, Chain.CONTINUES, Chain.COMMAND_EXPECTED])
def test_only_the_last_block_of_a_response_ends_in_a_status_word(chain: Chain) -> None:
    wire = Wire()
    wire.out(VERIFY)
    assert wire.back(PIN, chain) == stars(8)
    wire.out(b"", Level.CONTINUE_RESPONSE)
    assert wire.back(PIN + b"\x90\x00", Chain.ENDS) == stars(8) + b"\x90\x00"


def test_the_rest_of_a_response_to_secure() -> None:
    wire = Wire()
    command = PC_to_RDR_Secure(bSeq=9, bPINOperation=4, abPINDataStructure=PIN).build()
    assert wire.censor.command(command, APDU)[10:] == b"\x04" + stars(8)
    assert wire.back(PIN, Chain.BEGINS, seq=9) == stars(8)
    wire.out(b"", Level.CONTINUE_RESPONSE)
    assert wire.back(PIN, Chain.CONTINUES) == stars(8)
    wire.out(b"", Level.CONTINUE_RESPONSE)
    assert wire.back(PIN + b"\x90\x00", Chain.ENDS) == stars(8) + b"\x90\x00"
    wire.out(SELECT)
    assert wire.back(PIN) == PIN


# Commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (VERIFY, 5),
        (VERIFY + b"\0", 5),
        (bytes.fromhex("00200001000008") + PIN, 7),
        (bytes.fromhex("00200001000008") + PIN + b"\0\0", 7),
        (bytes.fromhex("0020000100") + PIN, 4),
        (bytes.fromhex("00200001") + PIN, 4),
        (bytes.fromhex("00200001") + PIN[:2], 4),
        (bytes.fromhex("00200001") + PIN[:3], 4),
        (bytes.fromhex("0020000107") + PIN + b"\0", 4),
        (bytes.fromhex("002000010000") + PIN[:1], 4),
        (bytes.fromhex("0020000100"), 5),
    ],
)
def test_lc_is_shown_where_it_adds_up(command: bytes, shown: int) -> None:
    assert Wire().out(command) == command[:shown] + stars(len(command) - shown)


def test_of_a_part_only_the_header_is_shown() -> None:
    wire = Wire()
    assert wire.out(VERIFY, Level.BEGINS) == VERIFY[:4] + stars(9)
    assert wire.out(PIN, Level.CONTINUES) == stars(8)
    assert wire.out(PIN, Level.ENDS) == stars(8)
    assert wire.out(SELECT) == SELECT


@pytest.mark.parametrize("level", [Level.CONTINUES, Level.ENDS, 5, Level.CONTINUE_RESPONSE])
def test_a_part_that_looks_like_a_beginning_is_masked(level: int) -> None:
    wire = Wire()
    assert wire.out(VERIFY, level) == stars(13)
    assert wire.back(PIN + b"\x63\xc2") == stars(8) + b"\x63\xc2"
    wire.out(VERIFY, level)
    assert wire.back(PIN) == stars(8), "that is no status word"


def test_a_beginning_too_short_to_tell_is_masked() -> None:
    wire = Wire()
    wire.out(VERIFY[:1], Level.BEGINS)
    assert wire.out(VERIFY[1:], Level.ENDS) == stars(12)


@pytest.mark.parametrize(
    ("command", "secret"),
    [
        ("00C2000006 002000010431", True),
        ("00C3000006 002400010431", True),
        ("00C20000000006 002000010431", True),
        ("00C2000001 00", True),
        ("00C2000000", True),
        ("00C2000006 00A400000231", False),
        ("00A4040C06 002000010431", False),
        ("00", True),
    ],
)
def test_commands_in_envelopes(command: str, secret: bool) -> None:
    assert carries_secret(bytes.fromhex(command)) is secret


def test_an_envelope_goes_on() -> None:
    wire = Wire()
    assert wire.out(ENVELOPE[:4] + b"\x0d" + VERIFY) == ENVELOPE[:4] + b"\x0d" + stars(13)
    assert wire.out(ENVELOPE[:4] + b"\x08" + PIN) == ENVELOPE[:4] + b"\x08" + stars(8)
    wire.out(GET_RESPONSE)
    assert wire.back(PIN + b"\x90\x00") == stars(8) + b"\x90\x00"
    assert wire.out(SELECT) == SELECT
    assert wire.out(ENVELOPE[:4] + b"\x04" + SELECT)[5:] == SELECT
    assert wire.out(GET_RESPONSE) == GET_RESPONSE
    assert wire.back(PIN + b"\x90\x00") == PIN + b"\x90\x00"


def test_what_a_verify_has_to_say_by_get_response() -> None:
    wire = Wire()
    wire.out(VERIFY)
    assert wire.back(b"\x61\x08") == b"\x61\x08"
    assert wire.out(GET_RESPONSE)[:4] == GET_RESPONSE[:4]
    assert wire.back(PIN + b"\x90\x00") == stars(8) + b"\x90\x00"


def test_it_may_be_asked_again_when_more_is_known() -> None:
    secrecy = Secrecy()
    assert secrecy.begins(b"\0")
    assert not secrecy.begins(SELECT)
    assert secrecy.begins(VERIFY)
    assert secrecy.begins(VERIFY)


# Blocks of protocols --------------------------------------------------------------------------


def t1(pcb: int, inf: bytes = b"") -> bytes:
    block = bytes((0, pcb, len(inf))) + inf
    return block + lrc(block)


def test_t1_blocks_that_nobody_announced() -> None:
    wire = Wire(T1)
    assert wire.out(t1(0x00, VERIFY)) == t1(0x00, VERIFY)[:8] + stars(9)
    assert wire.back(t1(0x00, PIN)) == t1(0x00, PIN)[:3] + stars(9)
    assert wire.out(t1(0x40, SELECT)) == t1(0x40, SELECT)
    assert wire.back(t1(0x40, PIN)) == t1(0x40, PIN)


def test_a_chain_of_t1_blocks_of_a_byte_each() -> None:
    wire = Wire(T1)
    for i, byte in enumerate(VERIFY):
        pcb = (i & 1) << 6 | 0x20 * (i < len(VERIFY) - 1)
        shown = wire.out(t1(pcb, bytes([byte])))
        assert shown[3:] in (bytes([byte, MASK]) if i == 0 else stars(2),)
        wire.back(t1(0x80 | (~i & 1) << 4))


def test_two_bytes_in_the_middle_of_a_t1_response_are_no_status_word() -> None:
    wire = Wire(T1)
    wire.out(t1(0x00, VERIFY))
    assert wire.back(t1(0x20, PIN[:2]))[3:] == stars(3)
    wire.out(t1(0x90))
    assert wire.back(t1(0x40, b"\x90\x00"))[3:5] == b"\x90\x00"


def test_t1_blocks_that_come_in_pieces() -> None:
    """A reader at character level returns the prologue, then the rest."""
    watch, answer = T1Watch(), t1(0x00, PIN)
    watch.out(t1(0x00, VERIFY))
    assert watch.back(answer[:3]) == answer[:3]
    assert watch.out(b"") == b""
    assert watch.back(answer[3:]) == stars(9)


def test_a_t1_block_after_one_that_was_never_answered() -> None:
    wire = Wire(T1)
    wire.out(t1(0x00, SELECT))
    assert wire.out(t1(0x00, VERIFY))[8:] == stars(9), "the first left nothing behind"


@pytest.mark.parametrize("level", [ExchangeLevel.TPDU, ExchangeLevel.CHARACTER])
def test_where_the_protocol_is_not_known_either_may_mask(level: ExchangeLevel) -> None:
    kinds = framings(level, None)
    assert len(kinds) == 2
    wire = Wire(kinds)
    assert not exposed(wire.out(VERIFY))
    wire = Wire(kinds)
    assert not exposed(wire.out(t1(0x00, VERIFY)))


def test_what_blocks_may_be() -> None:
    assert framings(ExchangeLevel.SHORT_APDU, None) == APDU
    assert framings(ExchangeLevel.EXTENDED_APDU, Protocol.T1) == APDU
    assert framings(ExchangeLevel.TPDU, Protocol.T0) == APDU
    assert framings(ExchangeLevel.TPDU, Protocol.T1) == T1
    assert framings(ExchangeLevel.CHARACTER, Protocol.T0) == T0
    assert framings(ExchangeLevel.CHARACTER, Protocol.T1) == T1


# Beside Card.transmit -------------------------------------------------------------------------


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(
    ("level", "protocol", "block"),
    [
        (ExchangeLevel.SHORT_APDU, Protocol.T1, VERIFY),
        (ExchangeLevel.EXTENDED_APDU, Protocol.T0, VERIFY),
        (ExchangeLevel.TPDU, Protocol.T0, VERIFY),
        (ExchangeLevel.TPDU, Protocol.T1, t1(0x00, VERIFY)),
    ],
)
def test_a_block_sent_by_hand(
    level: ExchangeLevel, protocol: Protocol, block: bytes, connected: bool
) -> None:
    recorder, file = Recorder(), io.BytesIO()
    virtual = ccid.VirtualReader(EchoCard(), level=level)
    with ccid.open_reader(virtual) as reader:
        commands = reader.slots[0].commands
        assert isinstance(commands, Commands)
        if connected:
            reader.slots[0].connect(protocol)
        else:
            commands.power_on()
        with reader.trace(recorder), reader.trace(file), suppress(CommandFailed):
            commands.xfr_block(block, timeout_s=2)
    assert exposed(b"".join(recorder.bulk)) == []
    assert exposed(file.getvalue()) == []


def test_an_envelope_by_transmit() -> None:
    recorder = Recorder()
    descriptor = make_descriptor(ExchangeLevel.EXTENDED_APDU, dwMaxCCIDMessageLength=20)
    virtual = ccid.VirtualReader(EchoCard(), descriptor=descriptor)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        with reader.trace(recorder):
            card.transmit(ENVELOPE[:4] + b"\x0d" + VERIFY)
    assert recorder.bulk[0][10:14] == ENVELOPE[:4]
    assert exposed(b"".join(recorder.bulk)) == []
