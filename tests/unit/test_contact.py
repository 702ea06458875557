"""Cards on their contacts: PPS and T=0 by ISO/IEC 7816-3:2006 clauses 9, 10 and 12."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.virtual import Application, EchoCard, FileSystemCard
from ccid.virtual.cards import contact_faults as faults
from ccid.virtual.cards.contact import Contact, ContactOptions
from ccid.virtual.cards.line import Line, Sent, joined
from ccid.virtual.cards.pps_card import Pps
from ccid.virtual.cards.t0_card import T0Options
from ccid.virtual.cards.t1_blocks import Check
from ccid.virtual.cards.t1_card import T1Options

BOTH = "3B D5 96 00 80 31 FE 45 63 63 69 64 21 65"
"""T=0 first, and T=1; F = 512, D = 32."""
SPECIFIC_T1 = "3B 90 95 91 01 21 25 91"
"""TA1 = 95, TA2 = 01: T=1 at F = 512, D = 16 and nothing else."""


def hexed(sent: list[Sent]) -> str:
    return joined(sent).hex(" ").upper()


def contact(atr: str = BOTH, application: Application | None = None, **options: object) -> Contact:
    made = Contact(
        application or EchoCard(),
        ContactOptions(atr=bytes.fromhex(atr), **options),  # type: ignore[arg-type]
    )
    assert made.reset() == bytes.fromhex(atr)
    return made


def ask(card: Contact, text: str, fidi: int | None = None) -> str:
    return hexed(card.receive(bytes.fromhex(text), fidi))


# Times ----------------------------------------------------------------------------------------


def test_times() -> None:
    """At 4 MHz: etu = 372 / 4 MHz = 93 µs; WWT = 10 × 960 × 372 / f; CWT = 8203 etu;
    BWT = 11 etu + 16 × 960 × 372 / f."""
    line = Line.of(0x11, 4e6)
    assert line.etu_s == pytest.approx(93e-6)
    assert line.wwt_s == pytest.approx(0.8928)
    assert line.cwt_s == pytest.approx(0.762879)
    assert line.bwt_s == pytest.approx(1.429503)
    fast = Line.of(0x96, 4e6, bwi=5, cwi=5)
    assert fast.etu_s == pytest.approx(4e-6)
    assert fast.cwt_s == pytest.approx(43 * 4e-6)
    assert fast.bwt_s == pytest.approx(11 * 4e-6 + 32 * 0.08928)
    with pytest.raises(ValueError, match="clock"):
        Line.of(0x11, 0)


# PPS ------------------------------------------------------------------------------------------


def test_first_offered_protocol_and_default_rate() -> None:
    card = contact()
    assert (card.protocol, card.fidi) == (0, 0x11)
    assert ask(card, "00 40 00 00 00") == "90 00"


@pytest.mark.parametrize(
    ("request_", "response", "protocol", "fidi"),
    [
        ("FF 11 96 78", "FF 11 96 78", 1, 0x96),
        ("FF 10 96 79", "FF 10 96 79", 0, 0x96),
        ("FF 01 FE", "FF 01 FE", 1, 0x11),
        ("FF 00 FF", "FF 00 FF", 0, 0x11),
        ("FF 11 95 7B", "FF 11 95 7B", 1, 0x95),
        ("FF 11 11 FF", "FF 11 11 FF", 1, 0x11),
        ("FF 11 97 79", "FF 01 FE", 1, 0x11),  # D above Di
        ("FF 11 18 F6", "FF 11 18 F6", 1, 0x18),  # D = 12
        ("FF 11 A6 48", "FF 01 FE", 1, 0x11),  # F is neither Fd nor Fi
        ("FF 11 76 98", "FF 01 FE", 1, 0x11),  # reserved
        ("FF 31 96 01 59", "FF 11 96 78", 1, 0x96),  # PPS2 is not echoed
        ("FF 01 FE 12 34", "FF 01 FE", 1, 0x11),  # more comes while the card answers
    ],
)
def test_pps(request_: str, response: str, protocol: int, fidi: int) -> None:
    card = contact()
    assert ask(card, request_) == response
    assert (card.protocol, card.fidi) == (protocol, fidi)


def test_pps_character_by_character() -> None:
    card = contact()
    said = [ask(card, character) for character in ["FF", "11", "96", "78"]]
    assert said == ["", "", "", "FF 11 96 78"]
    assert card.protocol == 1


@pytest.mark.parametrize("request_", ["FF 11 96 79", "FF 12 96 7B", "FF 91 96 F8"])
def test_a_pps_request_that_is_wrong_is_not_answered(request_: str) -> None:
    """A wrong PCK, a protocol that is not offered, the reserved bit: only a reset helps."""
    card = contact()
    assert ask(card, request_) == ""
    assert ask(card, "00 40 00 00 00") == ""
    card.reset()
    assert ask(card, "00 40 00 00 00") == "90 00"


@pytest.mark.parametrize(
    ("how", "response", "works"),
    [
        (Pps.ECHO, "FF 11 96 78", True),
        (Pps.WITHOUT_PPS1, "FF 01 FE", True),
        (Pps.MUTE, "", False),
        (Pps.OTHER_PPS1, "FF 11 97 79", False),
        (Pps.OTHER_PROTOCOL, "FF 10 96 79", False),
        (Pps.WRONG_PCK, "FF 11 96 F8", False),
        (Pps.WRONG_PPSS, "FE 11 96 78", False),
        (Pps.TOO_LONG, "FF 11 96 78", False),
    ],
)
def test_how_a_card_answers_pps(how: Pps, response: str, works: bool) -> None:
    card = contact(pps=how)
    assert ask(card, "FF 11 96 78") == response
    assert (ask(card, "00 C1 01 FE 3E") == "00 E1 01 FE 1E") is works


def test_pps1_that_nobody_asked_for() -> None:
    assert ask(contact(pps=Pps.TOO_LONG), "FF 01 FE") == "FF 11 11 FF"


def test_pps_comes_first_or_not_at_all() -> None:
    card = contact()
    ask(card, "00 40 00 00 00")
    assert ask(card, "FF 11 96 78 00") == "6D 00", "a header, CLA = FF"


def test_no_pps_in_specific_mode() -> None:
    card = contact(SPECIFIC_T1)
    assert (card.protocol, card.fidi) == (1, 0x95)
    assert ask(card, "FF 01 FE 00") == ""
    assert hexed(card.idle()) == "00 82 00 82"


def test_implicit_values_of_specific_mode() -> None:
    card = contact("3B 90 95 91 11 21 25 81", implicit_fidi=0x13)
    assert (card.protocol, card.fidi) == (1, 0x13)


def test_an_atr_that_cannot_be_read() -> None:
    card = contact("3B")
    assert (card.protocol, card.fidi) == (0, 0x11)


# Rates that do not agree ----------------------------------------------------------------------


def test_another_rate_in_t1_is_noise_both_ways() -> None:
    card = contact()
    ask(card, "FF 11 96 78")
    (sent,) = card.receive(bytes.fromhex("00 C1 01 FE 3E"), fidi=0x11)
    assert sent.parity_error
    assert ask(card, "00 C1 01 FE 3E", fidi=0x96) == "00 E1 01 FE 1E"


def test_another_rate_in_t0_and_for_pps_is_not_heard() -> None:
    card = contact()
    assert ask(card, "FF 11 96 78", fidi=0x96) == ""
    assert ask(card, "FF 10 96 79", fidi=0x11) == "FF 10 96 79"
    assert ask(card, "00 40 00 00 00", fidi=0x11) == ""
    assert ask(card, "00 40 00 00 00", fidi=0x96) == "90 00"


def test_codes_of_the_same_rate_agree() -> None:
    """F / D = 372 has the codes 11 and 01; 512 / 8 is 94, 1024 / 16 is B5."""
    assert ask(contact(), "00 40 00 00 00", fidi=0x01) == "90 00"
    card = contact()
    ask(card, "FF 10 94 7B")
    assert ask(card, "00 40 00 00 00", fidi=0xB5) == "90 00"


def test_protocols_that_do_not_agree() -> None:
    """A card in T=0 takes a T=1 block for a header; a card in T=1 takes a header for an unfinished
    block."""
    assert ask(contact(), "00 C1 01 FE 3E") == "6D 00"
    card = contact()
    ask(card, "FF 11 96 78")
    assert ask(card, "00 A4 04 00 00") == ""
    assert hexed(card.idle()) == "00 82 00 82"


# T=1 on the contacts --------------------------------------------------------------------------


def t1(**options: object) -> Contact:
    card = contact(t1=T1Options(**options))  # type: ignore[arg-type]
    ask(card, "FF 11 96 78")
    return card


def test_t1_in_pieces() -> None:
    card = t1()
    said = [ask(card, part) for part in ("00", "C1 01", "FE", "3E")]
    assert said == ["", "", "", "00 E1 01 FE 1E"]
    assert card.idle() == []


def test_what_the_atr_says_of_t1() -> None:
    """TA3 = FE, TB3 = 45, and T=1 with CRC by TC3 = 01."""
    card = t1()
    assert (card.t1.ifsc, card.t1.check) == (254, Check.LRC)
    assert card.line.bwt_s == pytest.approx(11 * 4e-6 + 16 * 0.08928)
    assert card.line.cwt_s == pytest.approx(43 * 4e-6)
    with_crc = contact("3B 80 81 71 FE 45 01 CA")
    assert with_crc.t1.check is Check.CRC
    assert ask(with_crc, "00 C1 01 FE 54 4E") == "00 E1 01 FE 57 75"
    strict = contact("3B 80 81 71 FE 45 01 CA", t1=T1Options(check=Check.CRC_13239))
    assert ask(strict, "00 C1 01 FE B1 AB") == "00 E1 01 FE 8A A8"


def test_extended_apdus_by_chaining() -> None:
    """00 30 00 00 00 0001 AA 0000 in blocks of 4."""
    card = t1(ifsc=4)
    assert ask(card, "00 20 04 00 30 00 00 14") == "00 90 00 90"
    assert ask(card, "00 60 04 00 00 01 AA CF") == "00 80 00 80"
    assert ask(card, "00 00 02 00 00 02") == "00 00 03 AA 90 00 39"


# T=0 ------------------------------------------------------------------------------------------


def t0(application: Application | None = None, **options: object) -> Contact:
    return contact("3B 00", application, t0=T0Options(**options))  # type: ignore[arg-type]


def test_case_1() -> None:
    assert ask(t0(), "00 40 00 00 00") == "90 00"


def test_case_2() -> None:
    assert ask(t0(), "00 10 05 00 03") == "10 05 06 07 90 00"
    assert len(t0().receive(bytes.fromhex("00 10 00 00 00"))[0].data) == 1 + 256 + 2


def test_case_3_waits_for_ack() -> None:
    card = t0()
    assert ask(card, "00 20 00 00 02") == "20"
    assert ask(card, "31") == ""
    assert ask(card, "32") == "90 00"
    assert card.application.commands == 1


def test_what_comes_behind_a_command_is_lost_as_the_card_answers() -> None:
    assert ask(t0(), "00 84 00 00 04" * 2) == ask(t0(), "00 84 00 00 04")
    assert ask(t0(), "00 20 00 00 02 31 32 00 84 00 00 04") == "20 90 00"


def test_case_4_by_get_response() -> None:
    card = t0()
    assert ask(card, "00 30 00 00 02") == "30"
    assert ask(card, "AA BB") == "61 02"
    assert ask(card, "00 C0 00 00 02") == "C0 AA BB 90 00"
    assert card.application.commands == 1


def test_wrong_length_with_get_response() -> None:
    card = t0()
    ask(card, "00 30 00 00 02")
    ask(card, "AA BB")
    assert ask(card, "00 C0 00 00 05") == "6C 02"
    assert ask(card, "00 C0 00 00 01") == "C0 AA 61 01"
    assert ask(card, "00 C0 00 00 01") == "C0 BB 90 00"


@pytest.mark.parametrize("ins", ["60", "6A", "90", "9F"])
def test_ins_that_procedure_bytes_are(ins: str) -> None:
    assert ask(t0(), f"00 {ins} 00 00 00") == "6D 00"


def test_one_by_one() -> None:
    card = t0(one_by_one=True)
    assert ask(card, "00 10 01 00 02") == "EF 01 EF 02 90 00"
    assert ask(card, "00 20 00 00 02") == "DF"
    assert ask(card, "31") == "DF"
    assert ask(card, "32") == "90 00"


def test_null() -> None:
    card = t0(nulls=2)
    assert ask(card, "00 10 01 00 01") == "60 60 10 01 90 00"
    assert ask(card, "00 20 00 00 01") == "60 60 20"
    assert ask(card, "31") == "60 60 90 00"


def test_null_while_the_card_is_slow() -> None:
    """WWT is 0.89 s: no two characters are further apart. The whole response takes 3 s."""
    card = t0()
    sent = card.receive(bytes.fromhex("00 38 00 03 00"))
    assert hexed(sent) == "60 60 60 60 90 00"
    assert all(one.after_s < card.line.wwt_s for one in sent)
    assert sum(one.after_s for one in sent) == pytest.approx(3.0)
    late = t0(null_when_slow=False)
    assert late.receive(bytes.fromhex("00 38 00 03 00")) == [Sent(3.0, b"\x90\x00")]


def test_a_card_that_computes_for_hours_costs_little() -> None:
    card = t0()
    *nulls, end = card.receive(bytes.fromhex("00 38 FF FF 00"))
    assert len(nulls) > 50_000
    assert {id(one) for one in nulls} == {id(nulls[0])}  # one in memory
    assert nulls[0].data == b"\x60"
    assert end.data == bytes.fromhex("9000")
    assert sum(one.after_s for one in (*nulls, end)) == pytest.approx(0xFFFF)
    assert max(one.after_s for one in (*nulls, end)) < card.line.wwt_s


def test_envelope() -> None:
    """00 30 00 00 00 0100 (256 bytes) 0000 in two parts (12.2.7)."""
    card = t0()
    apdu = bytes.fromhex("00 30 00 00 00 01 00") + bytes(range(256)) + b"\0\0"
    assert ask(card, "00 C2 00 00 FF") == "C2"
    assert hexed(card.receive(apdu[:255])) == "90 00"
    assert ask(card, "00 C2 00 00 0A") == "C2"
    assert hexed(card.receive(apdu[255:])) == "61 00"
    assert joined(card.receive(bytes.fromhex("00 C0 00 00 00"))) == (
        b"\xc0" + bytes(range(256)) + b"\x90\x00"
    )
    assert card.application.commands == 1


def test_an_empty_envelope_ends_an_apdu() -> None:
    """3E with 248 bytes of data: a full part, and no data after it."""
    card = t0()
    ask(card, "00 C2 00 00 FF")
    assert hexed(card.receive(bytes.fromhex("00 20 00 00 00 00 F8") + bytes(248))) == "90 00"
    assert card.application.commands == 0
    assert ask(card, "00 C2 00 00 00") == "90 00"
    assert card.application.commands == 1


def test_a_card_without_envelope() -> None:
    echo = EchoCard()
    echo.takes_envelope = False
    assert ask(t0(echo), "00 C2 00 00 05") == "6D 00"


def test_faults_of_t0() -> None:
    card = t0()
    card.faults += [
        faults.wrong_procedure_byte(0x21),
        faults.silence(after=1),
        faults.nulls(3, 0.5, after=2),
        faults.parity_error(after=3),
    ]
    ask_ = bytes.fromhex("00 10 01 00 01")
    assert hexed(card.receive(ask_)) == "21 01 90 00"
    assert card.receive(ask_) == []
    assert card.receive(ask_) == [Sent(0.5, b"\x60")] * 3 + [Sent(0.0, b"\x10\x01\x90\x00")]
    assert card.receive(ask_) == [Sent(0.0, b"\x10\x01\x90\x00", parity_error=True)]
    assert hexed(card.receive(ask_)) == "10 01 90 00"


def test_a_file_system_card_knows_which_commands_have_data() -> None:
    card = contact(FileSystemCard().atr.hex(), FileSystemCard())
    assert ask(card, "00 A4 00 0C 02") == "A4"
    assert ask(card, "3F 00") == "90 00"
    assert ask(card, "00 B0 00 00 00")[:2] in ("69", "6C", "B0")


@given(st.lists(st.tuples(st.binary(max_size=12), st.sampled_from([None, 0x11, 0x96])), max_size=9))
def test_noise_breaks_nothing(said: list[tuple[bytes, int | None]]) -> None:
    card = contact()
    for characters, fidi in said:
        card.receive(characters, fidi)
        card.idle()
    card.reset()
    assert ask(card, "00 40 00 00 00") == "90 00"
