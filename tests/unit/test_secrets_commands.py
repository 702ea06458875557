"""The commands that a trace shows and those that a trace masks: by header, and by the way of
sending."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_XfrBlock
from ccid.codes import Chain, ExchangeLevel, Level, Protocol
from ccid.errors import CcidError, InvalidApdu
from ccid.iso7816.apdu import CommandApdu
from ccid.masking.exchange_watch import ApduWatch, Framing, T0Watch, T1Watch
from ccid.masking.secret_commands import Secrecy, carries_secret
from ccid.trace import TRAFFIC
from ccid.virtual import Answer, EchoCard
from ccid.virtual.journal import Journal
from tests.unit.each import each
from tests.unit.test_secrets import APDU, SELECT, T1, Wire, stars, t1
from tests.unit.test_trace import PIN, VERIFY, Recorder, exposed

with (Path(__file__).parent / "data" / "secret_commands.csv").open(newline="") as table:
    SECRET = {row["command"]: row["header"] for row in csv.DictReader(table)}
"""Headers of commands whose data are secret in these tests. The table names the standard and the
clause of each."""


def spelled(name: str, data: bytes = PIN, le: bytes = b"") -> bytes:
    """One command of SECRET, in one of its encodings."""
    if name.startswith("GET DATA: the object"):
        data = bytes.fromhex("5C035FC109") + data
    return bytes.fromhex(SECRET[name]) + bytes((len(data),)) + data + le


@each(name=SECRET)
def test_secret_commands(name: str) -> None:
    apdu = spelled(name)
    assert carries_secret(apdu)
    for command in apdu, apdu + b"\0":
        wire = Wire()
        seen = 0 if name == "a reserved class" else 5  # perhaps no header
        assert wire.out(command) == command[:seen] + stars(len(command) - seen)
        assert wire.back(PIN + b"\x90\x00") == stars(8) + b"\x90\x00"
        wire.out(bytes.fromhex("00C0000000"))
        assert wire.back(PIN + b"\x90\x00") == stars(8) + b"\x90\x00"
    data = apdu[5:]
    for le in b"", b"\0\0":
        extended = apdu[:4] + bytes((0, 0, len(data))) + data + le
        wire, seen = Wire(), seen and 7
        assert wire.out(extended) == extended[:seen] + stars(len(extended) - seen)
        assert wire.back(PIN + b"\x90\x00") == stars(8) + b"\x90\x00"


@each(name=SECRET)
def test_secret_commands_in_parts(name: str) -> None:
    apdu = spelled(name)
    for cut in range(1, len(apdu)):
        wire = Wire()
        shown = wire.out(apdu[:cut], Level.BEGINS)
        wire.back(b"", Chain.COMMAND_EXPECTED)
        shown += wire.out(apdu[cut:], Level.ENDS)
        assert not exposed(shown)
        assert wire.back(PIN + b"\x90\x00") == stars(8) + b"\x90\x00"


@each(name=SECRET)
def test_secret_commands_in_t1(name: str) -> None:
    apdu = spelled(name)
    wire, seen = Wire(T1), 3 if name == "a reserved class" else 8
    assert wire.out(t1(0x00, apdu)) == t1(0x00, apdu)[:seen] + stars(len(apdu) + 4 - seen)
    assert wire.back(t1(0x00, PIN)) == t1(0x00, PIN)[:3] + stars(9)
    for cut in range(1, len(apdu)):
        wire = Wire(T1)
        first, second = t1(0x20, apdu[:cut]), t1(0x40, apdu[cut:])
        shown = wire.out(first)
        wire.back(t1(0x90))
        for block in second, second:  # sent again
            shown += wire.out(block)
        assert not exposed(shown)
        assert not exposed(wire.back(t1(0x00, PIN)))


@each(name=SECRET)
def test_secret_commands_in_characters(name: str) -> None:
    apdu = spelled(name)
    watch = T0Watch()
    assert watch.out(apdu[:5]) == apdu[:5]
    assert watch.back(apdu[1:2]) == apdu[1:2]
    assert watch.out(apdu[5:]) == stars(len(apdu) - 5)
    assert watch.back(b"\x61\x08") == b"\x61\x08"
    watch.out(bytes.fromhex("00C0000008"))
    assert watch.back(b"\xc0" + PIN + b"\x90\x00") == b"\xc0" + stars(8) + b"\x90\x00"


@each(name=SECRET)
def test_secret_commands_in_envelopes(name: str) -> None:
    apdu = spelled(name)
    for cut in range(1, len(apdu) + 1):
        wire, shown = Wire(), b""
        for part in apdu[:cut], apdu[cut:]:
            envelope = bytes.fromhex("00C20000") + bytes((len(part),)) + part
            shown += wire.out(envelope)[5:]
            wire.back(b"\x90\x00")
        assert not exposed(shown)


@each(name=SECRET)
def test_the_data_of_a_tpdu_apart_from_its_header(name: str) -> None:
    apdu = spelled(name, b"\x12\x34\x56\x78")
    wire = Wire()
    wire.out(apdu[:5])
    assert wire.back(apdu[1:2]) == apdu[1:2]
    assert wire.out(apdu[5:]) == stars(len(apdu) - 5)
    assert wire.back(b"\x90\x00") == b"\x90\x00"
    assert wire.out(SELECT) == SELECT


@each(name=SECRET)
def test_secret_commands_in_escapes(name: str) -> None:
    from ccid.codec.messages import PC_to_RDR_Escape, RDR_to_PC_Escape
    from ccid.masking.censor import Censor

    censor, apdu = Censor(), spelled(name)
    for sent in apdu, apdu[:5]:
        escape = PC_to_RDR_Escape(bSeq=3, abData=sent).build()
        assert censor.command(escape, APDU) == escape[:10] + stars(len(sent))
        answer = RDR_to_PC_Escape(bSeq=3, abData=PIN).build()
        assert censor.reply(answer) == answer[:10] + stars(8)


OPEN = [
    "00A4040C02 3F00", "00A4000C02 3F00", "00A40400", "00A40400 0AF0636369642064656D6F 00",
    "0CA4040C02 3F00", "00A4000000", "41A4040002 3F00", "00B0000000", "00B00000", "00B2010C00",
    "00B1000004 54020000 00", "00CA006E00", "00CA9F7F2D", "00CB3FFF05 5C035FC102 00",
    "00CB2F0002 5C00 00", "0084000008", "0070000001", "80F20000", "80F2400002 4F00 00",
    "84F2400002 4F00", "80CA9F7F00", "A0A4000002 3F00", "A0B0000009", "A0B201041A", "A0F2000016",
    "FFCA000000", "FFB0000410", "00B00000000000", "0044000000",
]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["00A4040011", "00A4040C40", "A0A4000008", "00A4000000 0008", "00A4040000 0040"]
)
def test_a_selection_of_what_has_no_such_name(text: str) -> None:
    apdu = (bytes.fromhex(text) + PIN * 8)[:100]
    assert carries_secret(apdu)


@pytest.mark.parametrize("text", OPEN)
def test_what_reads_and_selects_is_shown(text: str) -> None:
    apdu = bytes.fromhex(text)
    wire = Wire()
    assert wire.out(apdu) == apdu
    assert wire.back(b"data\x90\x00") == b"data\x90\x00"
    wire.out(bytes.fromhex("00C0000004"))
    assert wire.back(b"data\x90\x00") == b"data\x90\x00"
    wire = Wire(T1)
    assert wire.out(t1(0, apdu)) == t1(0, apdu)
    assert wire.back(t1(0, b"data\x90\x00")) == t1(0, b"data\x90\x00")


@pytest.mark.parametrize(
    "text",
    [
        "00CA010300",  # private use of OpenPGP
        "0047810000",
        "002A000000",
        "00A5000000",  # the rest of CALCULATE ALL
        "8012000010",  # FETCH
        "8084000008",
        "FFC0000008",
        "90AF000000",
        "00C0000008",
        "00A400",
    ],
)
def test_responses_that_may_be_secret(text: str) -> None:
    wire = Wire()
    wire.out(bytes.fromhex(text))
    assert wire.back(PIN + b"\x90\x00") == stars(8) + b"\x90\x00"


def test_every_header() -> None:
    """Of all headers, with such data, only SELECT is shown."""
    shown = {
        (cla, ins)
        for cla in range(256)
        for ins in range(256)
        if not carries_secret(bytes((cla, ins, 4, 0, 8)) + PIN)
    }
    interindustry = {*range(0x20), *range(0x40, 0x80)}
    assert shown == {(cla, 0xA4) for cla in interindustry | {0xA0}}


def test_bytes_that_are_no_command_are_masked_from_the_first() -> None:
    for data in PIN, b"\x12\x34\x56\x78\xff\xff\xff\xff", b"\x24\x12\x34\xff", b"\x31":
        assert Wire().out(data) == stars(len(data))


def test_a_part_without_its_beginning_is_masked() -> None:
    for level in Level.CONTINUES, Level.ENDS:
        wire = Wire()
        wire.out(bytes.fromhex("00B0000000"))
        wire.back(b"data\x90\x00")
        assert wire.out(PIN, level) == stars(8)


def test_the_parts_of_a_selection_are_shown() -> None:
    wire, apdu = Wire(), bytes.fromhex("00A404000AF0636369646464656D6F")
    assert wire.out(apdu[:9], Level.BEGINS) == apdu[:9]
    wire.back(b"", Chain.COMMAND_EXPECTED)
    assert wire.out(apdu[9:], Level.ENDS) == apdu[9:]
    assert wire.back(b"data\x90\x00") == b"data\x90\x00"


def test_a_pps_is_shown_and_what_only_resembles_one_is_not() -> None:
    pps = bytes.fromhex("FF119 67 8".replace(" ", ""))
    for watch in ApduWatch(), T0Watch(), T1Watch():
        assert watch.out(pps) == pps
        assert watch.back(pps) == pps
    for watch in ApduWatch(), T0Watch():
        watch.out(pps)
        assert not exposed(watch.back(PIN))
    load_keys = bytes.fromhex("FF82000008") + PIN
    for watch in ApduWatch(), T1Watch():
        assert not exposed(watch.out(load_keys))
        assert not exposed(watch.back(PIN))


@pytest.mark.parametrize("apdu", [VERIFY, *map(spelled, SECRET)])
def test_an_apdu_where_a_t1_block_should_be(apdu: bytes) -> None:
    wire = Wire(T1)
    assert not exposed(wire.out(apdu))
    assert not exposed(wire.back(PIN + b"\x90\x00"))


def test_what_a_host_says_to_an_unknown_card_is_shown_as_far_as_it_is_safe() -> None:
    for block in t1(0xC1, b"\xfe"), bytes.fromhex("FF119678"):
        wire = Wire((Framing.APDU, Framing.T1))
        assert wire.out(block) == block
        assert wire.back(block) == block


# Answers in disorder --------------------------------------------------------------------------


def test_a_lost_prologue_of_t1() -> None:
    answers = [
        (b"\xff\x9a\x20", PIN + b"xyz"),
        (b"\x00\x9a\x20", PIN),
        (b"\x00\x80\x03", PIN),
        (b"\x00\xc1\x31", PIN),
        (b"\x00\x31\x33", PIN),
        (PIN[:3], PIN[3:]),
        (b"\x08" + PIN[:2], PIN[2:]),
    ]
    for first, rest in answers:
        watch = T1Watch()
        watch.out(t1(0x00, VERIFY))
        assert not exposed(watch.back(first) + watch.back(rest))
        watch.failed()
        watch.out(t1(0x80))
        assert watch.back(first) == stars(3)
        assert watch.back(rest) == stars(len(rest))
        watch.failed()
        watch.out(t1(0x40, bytes.fromhex("00B0000008")))
        assert watch.back(t1(0x40, b"datadata\x90\x00")) == t1(0x40, b"datadata\x90\x00")


def test_a_whole_t1_block_is_believed_after_a_failure() -> None:
    watch = T1Watch()
    watch.out(t1(0x00, VERIFY))
    watch.failed()
    watch.out(t1(0x80))
    for block in t1(0x90), t1(0xC3, b"\x02"), t1(0x00, b"\x90\x00"):
        assert watch.back(block) == block
        watch.out(t1(0x80))
    assert watch.back(t1(0x00, PIN[:2])) == t1(0x00)[:2] + b"\x02" + stars(3)


def test_characters_that_are_no_procedure_bytes() -> None:
    for shift in range(8):
        watch = T0Watch()
        watch.out(VERIFY[:5])
        assert not exposed(watch.back(PIN[shift:] + PIN))
        assert watch.out(PIN) == stars(8)
    watch = T0Watch()
    watch.out(VERIFY[:5])
    watch.back(b"\x20")
    watch.out(PIN)
    assert not exposed(watch.back(b"\x90\x00" + PIN)), "more than SW1 SW2"
    assert not exposed(watch.back(PIN)), "nothing was asked"


def test_a_late_answer_under_the_number_of_the_next_command() -> None:
    wire = Wire()
    wire.out(VERIFY)
    wire.out(SELECT)
    assert wire.back(PIN + b"\x90\x00") == stars(10)
    wire.out(SELECT)
    assert wire.back(b"data\x90\x00") == b"data\x90\x00"


def test_a_number_that_comes_again_while_a_secret_answer_is_owed() -> None:
    wire = Wire()
    wire.out(VERIFY)
    wire.seq = 99
    wire.out(SELECT)
    wire.back(b"data\x90\x00")
    wire.seq = -1
    wire.out(SELECT)
    assert wire.back(PIN + b"\x90\x00") == stars(10)
    assert wire.back(PIN + b"\x90\x00") == stars(10), "and once more"


@pytest.mark.parametrize("kind", [0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x50, 0x6F, 0x31, 0xFF])
def test_replies_of_any_kind_to_anything(kind: int) -> None:
    """Only a DataBlock that answers a plain block shows its data."""
    body = PIN + b"\x90\x00"
    for apdu in VERIFY, SELECT, None:
        for status in 0x00, 0x40, 0x80, 0xC0:
            wire, seq = Wire(), 0
            if apdu is not None:
                wire.out(apdu)
            message = bytes((kind, len(body), 0, 0, 0, 0, seq, status, 0, 0)) + body
            shown = wire.censor.reply(message)
            assert len(shown) == len(message)
            if apdu is SELECT and kind == 0x80:
                assert shown == message
            else:
                assert not exposed(shown)


@pytest.mark.parametrize("length", range(1, 30))
def test_pieces_of_a_message_whose_header_was_lost(length: int) -> None:
    wire = Wire()
    wire.out(VERIFY)
    piece = (PIN * 4)[:length]
    assert wire.censor.reply(piece) == stars(length)
    assert wire.censor.command(piece[:9], APDU) == stars(min(length, 9))


def test_a_reply_of_another_slot() -> None:
    wire = Wire()
    wire.out(VERIFY)
    message = bytes((0x80, 8, 0, 0, 0, 1, 0, 0, 0, 0)) + PIN
    assert wire.censor.reply(message) == message[:10] + stars(8)
    select = PC_to_RDR_XfrBlock(bSlot=1, bSeq=7, abData=SELECT).build()
    assert wire.censor.command(select, APDU) == select
    assert wire.censor.reply(message) == message[:10] + stars(8)
    late = bytes((0x80, 8, 0, 0, 0, 1, 7, 0, 0, 0)) + PIN
    assert wire.censor.reply(late) == late


def test_a_reader_in_any_disorder() -> None:
    """The reader keeps the numbers; it answers late, twice, never, in another order, or with
    another type."""
    rng = random.Random(18)
    for count in [4, 256] * 60:
        wire, owed = Wire(), []
        for _ in range(60):
            if rng.random() < 0.6:
                secret = rng.random() < 0.5
                slot, wire.seq = rng.randrange(3), (wire.seq + 1) % count
                apdu = rng.choice([VERIFY, spelled(rng.choice(list(SECRET)))])
                block = PC_to_RDR_XfrBlock(
                    bSlot=slot, bSeq=wire.seq, abData=apdu if secret else SELECT
                )
                assert not exposed(wire.censor.command(block.build(), APDU))
                owed.append((slot, wire.seq, PIN if secret else b"data"))
            elif owed:
                slot, seq, data = rng.choice(owed)
                if count == 4 or rng.random() < 0.7:  # twice, if the number does not come again
                    owed.remove((slot, seq, data))
                body = data + rng.choice([b"\x90\x00", b""])
                kind = rng.choice([0x80, 0x80, 0x80, 0x83])
                status = rng.choice([0, 0, 0x40, 0x80])
                head = bytes((kind, len(body), 0, 0, 0, slot, seq, status, 0, 0))
                cut = rng.choice([0, 0, 0, 11])
                assert not exposed(wire.censor.reply((head + body)[cut:]))


def test_an_answer_to_power_on_that_is_no_atr() -> None:
    from ccid.codec.messages import PC_to_RDR_IccPowerOn

    for data, shown in ((b"\x3b\x00", True), (b"\x3f\x00", True), (PIN, False)):
        wire = Wire()
        wire.censor.command(PC_to_RDR_IccPowerOn(bSeq=0).build(), APDU)
        assert wire.back(data, seq=0) == (data if shown else stars(8))


def test_short_escapes_are_shown_and_their_answers() -> None:
    from ccid.codec.messages import PC_to_RDR_Escape, RDR_to_PC_Escape
    from ccid.masking.censor import Censor

    for sent in b"\x02", b"\x1f\x02":
        censor = Censor()
        escape = PC_to_RDR_Escape(abData=sent).build()
        assert censor.command(escape, APDU) == escape
        answer = RDR_to_PC_Escape(abData=b"firmware 1.0").build()
        assert censor.reply(answer) == answer


def test_notifications() -> None:
    from ccid.masking.censor import notification

    for message in b"\x50\x03", b"\x51\0\0\0\1":
        assert notification(message) == message
    assert notification(PIN) == stars(8)


# Everything that is written -------------------------------------------------------------------


class Leaky(EchoCard):
    """A reader that returns whatever it got."""

    def takes_data(self, header: bytes) -> bool:
        return True

    def process(self, command: CommandApdu) -> Answer:
        return Answer(command.data)


WAYS = [(level, protocol) for level in ExchangeLevel for protocol in Protocol]


@pytest.mark.parametrize(("level", "protocol"), WAYS)
def test_nothing_gets_out(
    level: ExchangeLevel, protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    file, recorder = io.BytesIO(), Recorder()
    virtual = ccid.VirtualReader(Leaky(), level=level, escape=lambda data: data)
    with caplog.at_level(TRAFFIC, "ccid"), ccid.open_reader(virtual) as reader:
        with (
            reader.slots[0].connect(protocol, auto_get_response=True) as card,
            reader.trace(file),
            reader.trace(recorder),
        ):
            for name in SECRET:
                for le in b"", b"\0":
                    card.transmit(spelled(name, le=le))
            for name in SECRET:
                reader.slots[0].escape(spelled(name))
    assert not any(PIN[i : i + 6] in file.getvalue() for i in range(3)), "three may be a time"
    assert not exposed(b"".join(recorder.bulk))
    assert PIN.hex(" ")[:8] not in caplog.text.lower()
    assert len(recorder.bulk) > 2 * len(SECRET)


def test_what_is_shown_of_an_iccd() -> None:
    for version in 1, 2:
        recorder = Recorder()
        virtual = ccid.VirtualReader(EchoCard(), bInterfaceProtocol=version)
        with ccid.open_reader(virtual) as reader, reader.trace(recorder):
            with reader.slots[0].connect() as card:
                card.transmit(VERIFY)
                card.transmit(bytes.fromhex("00A4040002 3F00"))
        said = [t.data for t in recorder.transfers]
        assert not exposed(b"".join(said))
        assert any(card.atr.raw in data for data in said)
        assert any(bytes.fromhex("00A40400") in data for data in said)


def test_a_virtual_readers_log(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal("v")
    with caplog.at_level(TRAFFIC, "ccid.virtual"):
        for i, name in enumerate(SECRET):
            journal.heard(PC_to_RDR_XfrBlock(bSeq=i, abData=spelled(name)).build())
    assert PIN.hex(" ")[:8] not in caplog.text.lower()
    assert len(caplog.records) == len(SECRET)


@pytest.mark.parametrize(
    "apdu", [VERIFY[:4] + PIN, VERIFY[:4] + b"\0" + PIN, VERIFY + PIN], ids=["no Lc", "0", "more"]
)
def test_errors_do_not_tell_the_first_digit(apdu: bytes) -> None:
    with pytest.raises(InvalidApdu) as raised:
        CommandApdu.parse(apdu)
    assert isinstance(raised.value, CcidError)
    assert "49" not in str(raised.value)
    assert "12597" not in str(raised.value)


def test_before_the_first_command_nothing_is_known() -> None:
    secrecy = Secrecy()
    assert secrecy.begins(bytes.fromhex("00C0000008"))
    assert not secrecy.begins(SELECT)
    assert not secrecy.begins(bytes.fromhex("00C0000008"))
