"""Traces: their content, and above all the secrets that they must not contain."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

import ccid
from ccid import errors
from ccid.codec.descriptors import ClassControl
from ccid.codec.messages import PC_to_RDR_Secure, PC_to_RDR_XfrBlock
from ccid.codes import ExchangeLevel, Protocol
from ccid.iso7816.apdu import CommandApdu
from ccid.link.pipe import Pipe
from ccid.link.slot_commands import Commands
from ccid.masking.censor import MASK, masked
from ccid.trace import TRAFFIC, LogSink, PcapngSink
from ccid.trace.log import logger
from ccid.trace.tap import Sink, Transfer
from ccid.transport import ReaderInfo
from ccid.virtual import EchoCard, faults
from ccid.virtual.journal import Journal
from tests.pcapng import packets

PIN = b"13579086"
VERIFY = bytes.fromhex("0020000108") + PIN
LEVELS = (ExchangeLevel.TPDU, ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU)


class Recorder(Sink):
    """A sink that keeps transfers."""

    def __init__(self) -> None:
        self.transfers: list[Transfer] = []
        self.ended = 0

    def begin(self, info: ReaderInfo) -> None:
        self.info = info

    def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
        self.transfers.append(transfer)

    def end(self) -> None:
        self.ended += 1

    @property
    def bulk(self) -> list[bytes]:
        return [t.data for t in self.transfers if t.kind == 3]


@pytest.fixture
def card() -> Iterator[ccid.Card]:
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        with reader.slots[0].connect() as connected:
            yield connected


# The file -------------------------------------------------------------------------------------


def test_descriptors_come_first(card: ccid.Card) -> None:
    file = io.BytesIO()
    with card.slot.reader.trace(file):
        card.transmit(bytes.fromhex("00A40400"))
    found = packets(file.getvalue())
    info = card.slot.reader.info
    assert [u.event for u in found[:4]] == ["S", "C", "S", "C"]
    assert found[1].data == info.device.build()
    assert found[3].data == info.raw_configuration
    assert found[0].setup == bytes.fromhex("8006000100001200")


def test_messages_follow(card: ccid.Card) -> None:
    file = io.BytesIO()
    with card.slot.reader.trace(file):
        card.transmit(bytes.fromhex("00A40400"))
    out, done, wanted, back = packets(file.getvalue())[4:]
    assert (out.event, out.kind, out.endpoint, out.status) == ("S", 3, 0x01, -115)
    assert out.data[:1] == b"\x6f"
    assert out.data[10:] == bytes.fromhex("00A40400")
    assert (done.event, done.status, done.data, done.length) == ("C", 0, b"", 14)
    assert (wanted.event, wanted.endpoint, wanted.data) == ("S", 0x82, b"")
    assert (back.event, back.status, back.data[10:]) == ("C", 0, b"\x90\x00")


def test_a_message_read_in_parts_is_one_packet(card: ccid.Card) -> None:
    virtual = ccid.VirtualReader(EchoCard(), level=ExchangeLevel.EXTENDED_APDU)
    file = io.BytesIO()
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as other:
        with reader.trace(file):
            other.transmit(bytes.fromhex("001000000003E8"))
    back = packets(file.getvalue())[-1]
    assert len(back.data) == 10 + 1000 + 2


def test_failed_transfers_have_a_status() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    file = io.BytesIO()
    with ccid.open_reader(virtual) as reader:
        connected = reader.slots[0].connect()
        virtual.faults.append(faults.unplugged(on=PC_to_RDR_XfrBlock))
        with reader.trace(file), pytest.raises(errors.ReaderRemoved):
            connected.transmit(bytes.fromhex("00A40400"))
    assert packets(file.getvalue())[-1].status == -19


def test_control_transfers(card: ccid.Card) -> None:
    recorder = Recorder()
    reader = card.slot.reader
    with reader.trace(recorder), pytest.raises(errors.TransportStall):
        Commands(cast(Pipe, reader.pipe), 3).abort()
    (stalled,) = recorder.transfers
    assert stalled.setup is not None
    assert stalled.setup.bRequest == 1
    assert isinstance(stalled.error, errors.TransportStall)


def test_into_a_file(card: ccid.Card, tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    trace = card.slot.reader.trace(path)
    card.transmit(bytes.fromhex("00A40400"))
    trace.stop()
    trace.stop()
    size = path.stat().st_size
    card.transmit(bytes.fromhex("00A40400"))
    assert path.stat().st_size == size
    assert len(packets(path.read_bytes())) == 8


def test_a_file_that_cannot_be_written(card: ccid.Card, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        card.slot.reader.trace(tmp_path / "none" / "trace.pcapng")
    assert card.transmit(bytes.fromhex("00A40400")) == b"\x90\x00"


def test_closing_the_reader_ends_its_traces(tmp_path: Path) -> None:
    recorder = Recorder()
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        reader.trace(recorder)
    assert recorder.ended == 1


def test_without_a_trace_there_is_no_tap(card: ccid.Card) -> None:
    reader = card.slot.reader
    with reader.trace(Recorder()):
        assert reader.pipe.transport is not reader.transport
    assert reader.pipe.transport is reader.transport
    assert reader.tap is None


def test_two_traces_at_once(card: ccid.Card) -> None:
    one, two = Recorder(), Recorder()
    with card.slot.reader.trace(one):
        card.transmit(bytes.fromhex("00A40400"))
        with card.slot.reader.trace(two, secrets=True):
            card.transmit(VERIFY)
        card.transmit(bytes.fromhex("00A40400"))
    assert len(one.bulk) == 6
    assert len(two.bulk) == 2
    assert PIN in b"".join(two.bulk)
    assert PIN not in b"".join(one.bulk)


# Errors of the file ---------------------------------------------------------------------------


class Failing(Recorder):
    """A sink that accepts some transfers, then fails."""

    def __init__(self, count: int = 0, at_end: bool = False) -> None:
        super().__init__()
        self.count, self.at_end = count, at_end

    def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
        if len(self.transfers) == self.count:
            raise OSError(28, "No space left on device")
        super().transfer(info, transfer)

    def end(self) -> None:
        super().end()
        if self.at_end:
            raise OSError(28, "No space left on device")


def test_a_trace_that_fails_is_left_off(caplog: pytest.LogCaptureFixture) -> None:
    failing, healthy = Failing(count=1, at_end=True), Recorder()
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        connected = reader.slots[0].connect()
        reader.trace(failing)
        reader.trace(healthy)
        for _ in range(3):
            assert connected.transmit(bytes.fromhex("00A40400")) == b"\x90\x00"
    assert len(failing.transfers) == 1
    assert len(healthy.transfers) == 8, "the power-off of closing, too"
    warnings = [r.getMessage() for r in caplog.records if r.name == "ccid.trace"]
    assert [text.split(": ")[1] for text in warnings] == [
        "the trace ends here",
        "the trace cannot be ended",
    ]
    assert failing.ended == 1


@pytest.mark.parametrize("at_end", [True, False])
def test_a_failing_trace_keeps_no_reader_open(at_end: bool) -> None:
    virtual = ccid.VirtualReader(EchoCard())
    reader = ccid.open_reader(virtual)
    reader.slots[0].connect()
    reader.trace(Failing(count=0 if not at_end else 99, at_end=at_end))
    reader.close()
    with pytest.raises(errors.ReaderClosed):
        reader.transport.control(ClassControl.abort(0, 0, 0), 100)
    ccid.open_reader(virtual).close()


def test_a_file_that_its_owner_closed(card: ccid.Card, caplog: pytest.LogCaptureFixture) -> None:
    file = io.BytesIO()
    with card.slot.reader.trace(file):
        file.close()
        for _ in range(2):
            assert card.transmit(bytes.fromhex("00A40400")) == b"\x90\x00"
    assert sum(r.name == "ccid.trace" for r in caplog.records) == 1


def test_a_sink_that_cannot_begin_is_ended(card: ccid.Card) -> None:
    class Refusing(Recorder):
        def begin(self, info: ReaderInfo) -> None:
            raise OSError("no")

    sink = Refusing()
    with pytest.raises(OSError, match="no"):
        card.slot.reader.trace(sink)
    assert sink.ended == 1
    assert card.slot.reader.tap is None


def test_an_ended_sink_takes_no_more(card: ccid.Card, tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    sink = PcapngSink(path)
    with card.slot.reader.trace(sink):
        card.transmit(bytes.fromhex("00A40400"))
    size = path.stat().st_size
    sink.begin(card.slot.reader.info)
    assert path.stat().st_size == size


# The environment ------------------------------------------------------------------------------


def test_the_environment_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCID_TRACE", str(tmp_path / "trace-%p.pcapng"))
    for _ in range(2):
        with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
            reader.slots[0].connect().disconnect()
    (file,) = tmp_path.iterdir()
    assert file.name == f"trace-{os.getpid()}.pcapng"
    found = packets(file.read_bytes())
    assert sum(u.data[:1] == b"\x62" for u in found) == 2, "both readers, their power-on too"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_leaves_its_parents_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.pcapng"
    monkeypatch.setenv("CCID_TRACE", str(path))
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        connected = reader.slots[0].connect()
        before = path.read_bytes()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with ccid.open_reader(ccid.VirtualReader(EchoCard())) as own:
                    own.slots[0].connect().disconnect()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert path.read_bytes() == before
        connected.transmit(bytes.fromhex("00A40400"))
    assert path.read_bytes().startswith(before)
    assert packets(path.read_bytes())[-1].data
    other = tmp_path / f"trace.pcapng.{child}"
    assert any(u.data[:1] == b"\x62" for u in packets(other.read_bytes()))


# Secrets --------------------------------------------------------------------------------------


def exposed(data: bytes) -> list[int]:
    """Parts of the PIN, three digits long, that are in ``data``."""
    return [i for i in range(len(PIN) - 2) if PIN[i : i + 3] in data]


def test_a_transfer_whose_masking_was_interrupted_is_masked(
    card: ccid.Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, reader = Recorder(), card.slot.reader
    with reader.trace(recorder):
        assert reader.tap is not None
        with monkeypatch.context() as patched:
            results = iter([KeyboardInterrupt(), ValueError()])

            def command(*_: object) -> bytes:
                raise next(results)

            patched.setattr(reader.tap._censor, "command", command)
            with pytest.raises(KeyboardInterrupt):
                card.transmit(VERIFY)
    assert len(recorder.bulk) == 1
    assert exposed(recorder.bulk[0]) == []
    assert recorder.transfers[0].is_masked


WAYS = [(level, protocol) for level in ExchangeLevel for protocol in Protocol]


@pytest.mark.parametrize(("level", "protocol"), WAYS)
@pytest.mark.parametrize(
    "apdu",
    [
        VERIFY,
        VERIFY + b"\x00",
        bytes.fromhex("0024000110") + PIN * 2,
        bytes.fromhex("002C000110") + PIN * 2,
        bytes.fromhex("FF82000008") + PIN,
        bytes.fromhex("1020000108") + PIN,
    ],
    ids=["VERIFY", "VERIFY case 4", "CHANGE", "RESET", "LOAD KEYS", "chained"],
)
def test_secrets_are_masked_everywhere(
    level: ExchangeLevel, protocol: Protocol, apdu: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file, recorder = io.BytesIO(), Recorder()
    virtual = ccid.VirtualReader(EchoCard(), level=level)
    with (
        caplog.at_level(TRAFFIC, "ccid"),
        ccid.open_reader(virtual) as reader,
        reader.slots[0].connect(protocol) as connected,
        reader.trace(file),
        reader.trace(recorder),
    ):
        reply = connected.transmit(apdu)
    assert reply in (b"\x90\x00", b"\x67\x00", b"\x6d\x00")
    assert exposed(file.getvalue()) == []
    assert exposed(b"".join(recorder.bulk)) == []
    spaced, plain = PIN.hex(" "), PIN.hex()
    for text in (caplog.text.lower(), repr(virtual), repr(recorder.transfers).lower()):
        assert spaced[:8] not in text
        assert plain[:6] not in text
        assert "135790" not in text
    sent = b"".join(message[10:] for message in recorder.bulk if message[0] == 0x6F)
    prologue = 3 if level < ExchangeLevel.SHORT_APDU and protocol is Protocol.T1 else 0
    size, by_character = len(apdu), level is ExchangeLevel.CHARACTER and not prologue
    if by_character:  # case 4 is sent as case 3, and a card may refuse after the header
        size = min(size, 5 + apdu[4]) if reply == b"\x90\x00" else 5
    assert len(sent) == prologue + size + bool(prologue), "lengths stay"
    assert sent[prologue : prologue + 5] == apdu[:5], "the header may be seen"
    assert set(sent[prologue + 5 :]) <= {MASK}
    if not prologue and not by_character:
        assert recorder.bulk[-1][-2:] == reply


@pytest.mark.parametrize("message_length", [20, 64, 271])
def test_secrets_in_many_blocks(message_length: int) -> None:
    from ccid.virtual import make_descriptor

    descriptor = make_descriptor(ExchangeLevel.EXTENDED_APDU, dwMaxCCIDMessageLength=message_length)
    virtual = ccid.VirtualReader(EchoCard(), descriptor=descriptor)
    apdu = CommandApdu(0, 0x20, data=PIN * 40, extended=True).build()
    recorder = Recorder()
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as connected:
        with reader.trace(recorder):
            connected.transmit(apdu)
            connected.transmit(bytes.fromhex("00100000000004"))
    blocks = [m for m in recorder.bulk if m[0] == 0x6F]
    sent = b"".join(m[10:] for m in blocks[:-1])
    assert sent == apdu[:4] + bytes([MASK]) * 323, "whether Lc fits, a part does not tell"
    assert recorder.bulk[-1][10:] == bytes.fromhex("00010203 9000"), "the next APDU is no secret"


def test_the_data_of_a_secret_answer_are_masked(card: ccid.Card) -> None:
    virtual = ccid.VirtualReader(EchoCard())
    secret = bytes.fromhex("80 0B000000 00 00 00 00 00") + PIN + b"\x01\x90\x00"
    recorder = Recorder()
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as connected:

        def leak(_f: object, command: bytes, _s: object) -> list[faults.Said]:
            return [faults.Said(secret[:6] + command[6:7] + secret[7:], 0.0)]

        virtual.faults.append(faults.Fault(leak, on=PC_to_RDR_XfrBlock))
        with reader.trace(recorder):
            assert connected.transmit(VERIFY) == PIN + b"\x01\x90\x00"
    assert recorder.bulk[1][10:] == bytes([MASK]) * 9 + b"\x90\x00"


def test_secure_is_always_masked(card: ccid.Card) -> None:
    recorder = Recorder()
    with card.slot.reader.trace(recorder), pytest.raises(errors.UnsupportedByReader):
        card.slot.commands.secure(4, PIN, timeout_s=1)
    assert recorder.bulk[0][:1] == bytes([PC_to_RDR_Secure.bMessageType])
    assert recorder.bulk[0][10:] == b"\x04" + bytes([MASK]) * 8


def test_secrets_can_be_had_by_name(card: ccid.Card) -> None:
    recorder = Recorder()
    with card.slot.reader.trace(recorder, secrets=True):
        card.transmit(VERIFY)
    assert recorder.bulk[0][10:] == VERIFY
    assert not any(t.is_masked for t in recorder.transfers)


def test_masked_packets_say_so(card: ccid.Card) -> None:
    file = io.BytesIO()
    with card.slot.reader.trace(file):
        card.transmit(VERIFY)
        card.transmit(bytes.fromhex("00A40400"))
    comments = [u.comment for u in packets(file.getvalue()) if u.data and u.kind == 3]
    assert comments == [True, False, False, False]


def test_exceptions_hold_no_secrets() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as connected:
        for fault in (
            faults.failing(0xFD),
            faults.wrong_type(),
            faults.cut_short(11),
            faults.lying_length(-1),
        ):
            virtual.faults.append(fault)
            with pytest.raises(errors.CcidError) as raised:
                connected.transmit(VERIFY)
            said = f"{raised.value!r} {raised.value.__dict__}"
            assert PIN.decode() not in said
            assert PIN.hex() not in said
        with pytest.raises(errors.CcidError) as raised:
            connected.transmit(VERIFY * 30)
        assert PIN.decode() not in repr(raised.value)


@pytest.mark.parametrize(
    ("head", "tail", "shown"),
    [
        (0, 0, "2A2A2A2A"),
        (1, 0, "012A2A2A"),
        (0, 2, "2A2A0304"),
        (2, 2, "01020304"),
        (9, 9, "01020304"),
    ],
)
def test_masking(head: int, tail: int, shown: str) -> None:
    message = bytes(range(10)) + bytes.fromhex("01020304")
    assert masked(message, head, tail) == bytes(range(10)) + bytes.fromhex(shown)


# The log --------------------------------------------------------------------------------------


def test_the_log(card: ccid.Card, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(TRAFFIC, "ccid.traffic"), card.slot.reader.trace(LogSink()):
        card.transmit(bytes.fromhex("00A40400"))
        card.transmit(VERIFY)
    lines = [r.getMessage() for r in caplog.records if r.name == "ccid.traffic"]
    assert "PC_to_RDR_XfrBlock" in lines[1]
    assert "00 A4 04 00" in lines[1]
    assert "RDR_to_PC_DataBlock" in lines[2]
    assert "ACTIVE PROCESSED" in lines[2]
    assert "(secret, masked)" in lines[3]
    assert all(r.levelname == "TRAFFIC" for r in caplog.records if r.name == "ccid.traffic")


def test_the_level_of_the_logger_alone_turns_it_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(TRAFFIC, "ccid.traffic"):
        with ccid.open_reader(ccid.VirtualReader(EchoCard())):
            pass
    assert "PC_to_RDR_GetSlotStatus" in caplog.text


def test_it_is_off_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
            assert reader.tap is None
    assert not logger.isEnabledFor(TRAFFIC)
    assert "PC_to_RDR" not in caplog.text


def test_failures_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with caplog.at_level(TRAFFIC, "ccid.traffic"), ccid.open_reader(virtual) as reader:
        with reader.slots[0].connect() as connected:
            virtual.faults.append(faults.failing(0xFD, on=PC_to_RDR_XfrBlock))
            with pytest.raises(errors.CommandFailed):
                connected.transmit(bytes.fromhex("00A40400"))
    assert "FAILED bError=FD (XFR_PARITY_ERROR" in caplog.text


def test_the_virtual_readers_own_log(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal("v")
    with caplog.at_level(TRAFFIC, "ccid.virtual"):
        journal.heard(PC_to_RDR_XfrBlock(abData=VERIFY).build())
        journal.heard(PC_to_RDR_XfrBlock(abData=bytes.fromhex("00A40400")).build())
    assert "00 20 00 01 08 2A 2A" in caplog.text
    assert "00 A4 04 00" in caplog.text
    assert PIN.hex(" ") not in caplog.text
    Journal("v", secrets=True).heard(PC_to_RDR_XfrBlock(abData=VERIFY).build())


def test_a_sink_is_closed_once(tmp_path: Path) -> None:
    sink = PcapngSink(tmp_path / "x.pcapng")
    sink.end()
    sink.end()
    assert (tmp_path / "x.pcapng").read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
