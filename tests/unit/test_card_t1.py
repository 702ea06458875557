"""The card's end of T=1, by the scenarios of ISO/IEC 7816-3:2006 annex A and the rules of 11.6.

Blocks are written out by hand, without their LRC. ``x`` before a block of the interface device:
it arrives with a wrong bit. What the card's block looks like when it arrives does not matter to
the card; that it was not understood shows in what comes next.
"""

from __future__ import annotations

import random
from functools import reduce
from operator import xor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.iso7816.apdu import CommandApdu
from ccid.virtual import Answer, Application, EchoCard
from ccid.virtual.cards import contact_faults as faults
from ccid.virtual.cards.contact_faults import ContactFault
from ccid.virtual.cards.line import Line, Sent, joined
from ccid.virtual.cards.t1_blocks import Check, block, kind, lrc
from ccid.virtual.cards.t1_card import T1Card, T1Options

LINE = Line.of(0x11, 4e6, bwi=4, cwi=13)


class Fixed(Application):
    """A card that answers every command with the same response, and records the commands."""

    def __init__(self, response: str, after_s: float = 0.0) -> None:
        super().__init__()
        self.response = bytes.fromhex(response)
        self.after_s = after_s
        self.heard: list[bytes] = []

    def process(self, command: CommandApdu) -> Answer:
        raise NotImplementedError

    def transmit(self, apdu: bytes) -> Answer:
        self.commands += 1
        self.heard.append(apdu)
        sw = int.from_bytes(self.response[-2:], "big")
        return Answer(self.response[:-2], sw, self.after_s)


def with_lrc(text: str) -> bytes:
    data = bytes.fromhex(text)
    return data + bytes((reduce(xor, data),))


def say(card: T1Card, text: str) -> str:
    """Send the block ``text``; returns the card's block without its LRC, or ``-`` for no block."""
    data = with_lrc(text.lstrip("x "))
    if text.startswith("x"):
        data = data[:-1] + bytes((data[-1] ^ 0x10,))
    answer = joined(card.receive(data))
    if not answer:
        return "-"
    assert reduce(xor, answer) == 0, "the LRC"
    return answer[:-1].hex(" ").upper()


def play(card: T1Card, script: str) -> None:
    """Play lines of the form ``block of the interface device -> block of the card``."""
    for number, line in enumerate(filter(None, map(str.strip, script.splitlines()))):
        sent, _, expected = line.partition("->")
        assert say(card, sent.strip()) == expected.strip(), f"line {number}: {line}"


def card(
    response: str = "F1 F2",
    *asked: ContactFault,
    ifsd: int | None = None,
    after_s: float = 0.0,
    **options: object,
) -> tuple[T1Card, Fixed]:
    application = Fixed(response, after_s)
    made = T1Card(application.transmit, T1Options(**options), line=LINE)  # type: ignore[arg-type]
    if ifsd is not None:
        made.ifsd = ifsd
    made.faults += asked
    return made, application


# Annex A --------------------------------------------------------------------------------------

SCENARIOS = {
    "1: error-free": (
        {},
        """00 00 02 01 02 -> 00 00 02 F1 F2
           00 40 02 03 04 -> 00 40 02 F1 F2
           00 00 02 05 06 -> 00 00 02 F1 F2""",
        3,
    ),
    "4: the interface device announces its IFSD": (
        {},
        """00 00 02 01 02 -> 00 00 02 F1 F2
           00 C1 01 79 -> 00 E1 01 79
           00 40 02 03 04 -> 00 40 02 F1 F2""",
        2,
    ),
    "5: chaining by the interface device": (
        {},
        """00 20 02 01 02 -> 00 90 00
           00 60 02 03 04 -> 00 80 00
           00 00 02 05 06 -> 00 00 02 F1 F2""",
        1,
    ),
    "6: chaining by the card": (
        {"response": "F1 F2 F3 F4", "ifsd": 2},
        """00 00 02 01 02 -> 00 20 02 F1 F2
           00 90 00 -> 00 40 02 F3 F4
           00 40 02 03 04 -> 00 20 02 F1 F2
           00 90 00 -> 00 40 02 F3 F4""",
        2,
    ),
    "8: the first block is not understood": (
        {},
        """x00 00 02 01 02 -> 00 81 00
           00 00 02 01 02 -> 00 00 02 F1 F2""",
        1,
    ),
    "9: the card's first block is not understood": (
        {},
        """00 00 02 01 02 -> 00 00 02 F1 F2
           00 81 00 -> 00 00 02 F1 F2
           00 40 02 03 04 -> 00 40 02 F1 F2""",
        2,
    ),
    "10: neither is": (
        {},
        """x00 00 02 01 02 -> 00 81 00
           00 81 00 -> 00 81 00
           00 00 02 01 02 -> 00 00 02 F1 F2""",
        1,
    ),
    "11: nor is the R-block that asks again": (
        {},
        """00 00 02 01 02 -> 00 00 02 F1 F2
           x00 81 00 -> 00 91 00
           00 81 00 -> 00 00 02 F1 F2""",
        1,
    ),
    "13: nor its repetition": (
        {},
        """00 00 02 01 02 -> 00 00 02 F1 F2
           x00 81 00 -> 00 91 00
           x00 81 00 -> 00 91 00
           00 81 00 -> 00 00 02 F1 F2""",
        1,
    ),
    "21: an acknowledgement is not understood": (
        {},
        """00 20 02 01 02 -> 00 90 00
           00 81 00 -> 00 90 00
           00 60 02 03 04 -> 00 80 00
           00 00 02 05 06 -> 00 00 02 F1 F2""",
        1,
    ),
    "22: nor is the R-block that asks for it": (
        {},
        """00 20 02 01 02 -> 00 90 00
           x00 81 00 -> 00 90 00
           00 60 02 03 04 -> 00 80 00
           00 00 02 05 06 -> 00 00 02 F1 F2""",
        1,
    ),
    "23: the interface device's acknowledgement is not": (
        {"response": "F1 F2 F3 F4", "ifsd": 2},
        """00 00 02 01 02 -> 00 20 02 F1 F2
           x00 90 00 -> 00 91 00
           00 90 00 -> 00 40 02 F3 F4""",
        1,
    ),
    "29: resynchronization": (
        {},
        """00 00 02 01 02 -> 00 00 02 F1 F2
           00 C0 00 -> 00 E0 00
           00 00 02 03 04 -> 00 00 02 F1 F2""",
        2,
    ),
    "30: its response is not understood": (
        {},
        """00 00 02 01 02 -> 00 00 02 F1 F2
           00 C0 00 -> 00 E0 00
           00 C0 00 -> 00 E0 00
           00 00 02 03 04 -> 00 00 02 F1 F2""",
        2,
    ),
    "31: its request is not": (
        {},
        """00 00 02 01 02 -> 00 00 02 F1 F2
           x00 C0 00 -> 00 91 00
           00 C0 00 -> 00 E0 00
           00 00 02 03 04 -> 00 00 02 F1 F2""",
        2,
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(name: str) -> None:
    options, script, commands = SCENARIOS[name]
    made, application = card(**options)  # type: ignore[arg-type]
    play(made, script)
    assert application.commands == commands, "each command once"


def test_scenario_2_a_card_that_needs_time() -> None:
    """BWT is 1.4 s here: after 0.75 BWT the card asks for as many BWT as it still needs."""
    made, application = card(after_s=3.0)
    (asked,) = made.receive(with_lrc("00 00 02 01 02"))
    assert asked.data == with_lrc("00 C3 01 02")
    assert 0.5 * LINE.bwt_s < asked.after_s < LINE.bwt_s
    (answer,) = made.receive(with_lrc("00 E3 01 02"))
    assert answer.data == with_lrc("00 00 02 F1 F2")
    assert asked.after_s + answer.after_s == pytest.approx(3.0)
    assert answer.after_s < 2 * LINE.bwt_s
    assert application.commands == 1


def test_it_asks_for_time_again_if_that_was_too_little() -> None:
    made, application = card(after_s=4.0, wtx_multiplier=1)
    total, said = 0.0, []
    sent = made.receive(with_lrc("00 00 02 01 02"))
    while True:
        said.append(sent[0].data[1])
        total += sent[0].after_s
        if sent[0].data[1] == 0:
            break
        assert sent[0].after_s + 22 * LINE.etu_s < LINE.bwt_s
        sent = made.receive(with_lrc("00 E3 01 01"))
    assert said[:-1] == [0xC3] * (len(said) - 1)
    assert len(said) == 4
    assert total == pytest.approx(4.0)
    assert application.commands == 1


def test_a_card_that_does_not_ask_is_late() -> None:
    made, _ = card(after_s=3.0, wtx=False)
    assert made.receive(with_lrc("00 00 02 01 02")) == [Sent(3.0, with_lrc("00 00 02 F1 F2"))]


@pytest.mark.parametrize(
    ("asks", "request_", "response"),
    [
        (faults.asks_ifs(0x79), "00 C1 01 79", "00 E1 01 79"),
        (faults.asks_wtx(0x10), "00 C3 01 10", "00 E3 01 10"),
    ],
    ids=["3, 16 to 19: IFS", "2, 14, 15: WTX"],
)
def test_scenarios_of_the_cards_requests(asks: ContactFault, request_: str, response: str) -> None:
    made, application = card("F1 F2", asks)
    play(
        made,
        f"""00 00 02 01 02 -> {request_}
            00 81 00 -> {request_}
            x00 81 00 -> {request_}
            x{response} -> {request_}
            {response} -> 00 00 02 F1 F2
            00 81 00 -> 00 00 02 F1 F2
            x00 81 00 -> 00 91 00
            00 81 00 -> 00 00 02 F1 F2
            00 40 02 01 02 -> 00 40 02 F1 F2""",
    )
    assert application.commands == 2
    assert made.ifsc == (0x79 if request_[3:5] == "C1" else 32)


def test_scenario_25_the_interface_device_aborts_the_cards_chain() -> None:
    made, application = card("F1 F2 F3 F4", ifsd=2)
    play(
        made,
        """00 00 02 01 02 -> 00 20 02 F1 F2
           00 C2 00 -> 00 E2 00
           00 40 02 03 04 -> 00 60 02 F1 F2
           00 80 00 -> 00 00 02 F3 F4""",
    )
    assert application.commands == 2


def test_scenario_26_the_card_aborts_its_chain() -> None:
    made, application = card("F1 F2 F3 F4", faults.aborts(on="I", after=1), ifsd=2)
    play(
        made,
        """00 00 02 01 02 -> 00 20 02 F1 F2
           00 90 00 -> 00 C2 00
           00 E2 00 -> 00 90 00
           00 40 02 03 04 -> 00 60 02 F1 F2""",
    )
    assert application.commands == 2


def test_scenario_27_the_card_aborts_the_chain_to_it() -> None:
    made, application = card("F1 F2", faults.aborts(on="R", after=1))
    play(
        made,
        """00 20 02 01 02 -> 00 90 00
           00 60 02 03 04 -> 00 C2 00
           00 E2 00 -> 00 80 00
           00 00 02 07 08 -> 00 00 02 F1 F2""",
    )
    assert application.heard == [b"\7\x08"], "nothing is left of the chain"


def test_scenario_28_the_interface_device_aborts_its_chain() -> None:
    made, application = card()
    play(
        made,
        """00 20 02 01 02 -> 00 90 00
           00 C2 00 -> 00 E2 00
           00 40 02 07 08 -> 00 00 02 F1 F2""",
    )
    assert application.heard == [b"\7\x08"]


# Rules ----------------------------------------------------------------------------------------


def test_at_the_start_it_answers_noise_twice_and_then_stays_in_reception() -> None:
    """Rule 7.4.3."""
    made, application = card()
    play(
        made,
        """x00 00 02 01 02 -> 00 81 00
           x00 00 02 01 02 -> 00 81 00
           x00 00 02 01 02 -> -
           x00 C0 00 -> -
           00 C0 00 -> 00 E0 00
           00 00 02 01 02 -> 00 00 02 F1 F2""",
    )
    assert application.commands == 1


@pytest.mark.parametrize(
    "wrong",
    [
        "00 01 02 01 02",  # reserved bits of an I-block
        "00 40 02 01 02",  # N(S)
        "00 84 00",
        "00 A0 00",
        "00 83 00",
        "00 80 01 00",
        "00 C0 01 00",
        "00 C1 00",
        "00 C1 01 00",
        "00 C1 01 FF",
        "00 C1 02 20 20",
        "00 C2 01 00",
        "00 C4 00",
        "00 C3 01 01",  # only a card may ask for time
        "00 E0 00",
        "00 E3 01 01",
        "00 E1 01 20",
        "80 00 02 01 02",  # Vpp
        "08 00 02 01 02",
        "11 00 02 01 02",  # SAD = DAD
        "00 00 03 01 02",
        "00 00 01 01 02",
        "00 00",
        "00",
        "00 00 21" + 33 * " 00",  # more than IFSC
        "00 00 FF" + 255 * " 00",
    ],
)
def test_blocks_that_are_wrong(wrong: str) -> None:
    made, application = card()
    play(
        made,
        f"""{wrong} -> 00 82 00
            00 00 02 01 02 -> 00 00 02 F1 F2
            x00 81 00 -> 00 91 00""",
    )
    assert application.commands == 1


def test_an_i_block_that_comes_twice_is_carried_out_once() -> None:
    made, application = card()
    play(
        made,
        """00 00 02 01 02 -> 00 00 02 F1 F2
           00 00 02 01 02 -> 00 92 00
           00 80 00 -> 00 00 02 F1 F2""",
    )
    assert application.commands == 1


def test_an_i_block_in_the_middle_of_the_cards_chain() -> None:
    made, application = card("F1 F2 F3 F4", ifsd=2)
    play(
        made,
        """00 00 02 01 02 -> 00 20 02 F1 F2
           00 40 02 03 04 -> 00 92 00
           00 90 00 -> 00 40 02 F3 F4""",
    )
    assert application.commands == 1


def test_an_r_block_that_asks_for_a_block_of_the_chain_again() -> None:
    made, _ = card("F1 F2 F3 F4 F5 F6", ifsd=2)
    play(
        made,
        """00 00 02 01 02 -> 00 20 02 F1 F2
           00 90 00 -> 00 60 02 F3 F4
           00 91 00 -> 00 60 02 F3 F4
           00 92 00 -> 00 60 02 F3 F4
           00 80 00 -> 00 00 02 F5 F6
           00 82 00 -> 00 00 02 F5 F6
           00 90 00 -> 00 92 00""",
    )


def test_nothing_but_the_response_answers_its_request() -> None:
    """Rule 7.3."""
    made, application = card("F1 F2", faults.asks_wtx(1))
    play(
        made,
        """00 00 02 01 02 -> 00 C3 01 01
           00 40 02 01 02 -> 00 C3 01 01
           00 E3 01 02 -> 00 C3 01 01
           00 E1 01 01 -> 00 C3 01 01
           00 C1 01 40 -> 00 C3 01 01
           00 E3 01 01 -> 00 00 02 F1 F2""",
    )
    assert application.commands == 1
    assert made.ifsd == 32


def test_resynchronization_drops_chains_and_keeps_the_application() -> None:
    made, application = card("F1 F2 F3 F4", ifsd=2)
    play(
        made,
        """00 00 02 01 02 -> 00 20 02 F1 F2
           00 90 00 -> 00 40 02 F3 F4
           00 60 02 03 04 -> 00 80 00
           00 C0 00 -> 00 E0 00
           00 00 02 05 06 -> 00 00 04 F1 F2 F3 F4""",
    )
    assert application.heard == [b"\1\2", b"\5\6"]
    assert (application.resets, made.ifsd) == (0, 32)


def test_a_request_of_the_card_does_not_outlive_resynchronization() -> None:
    made, _ = card("F1 F2", faults.asks_resynch())
    play(
        made,
        """00 00 02 01 02 -> 00 C0 00
           00 82 00 -> 00 C0 00
           00 C0 00 -> 00 E0 00
           00 00 02 01 02 -> 00 00 02 F1 F2""",
    )


def test_what_was_announced_can_be_sent_after_resynchronization() -> None:
    made, application = card(announces_ifsc=64)
    long = "00 00 40" + 64 * " 07"
    play(
        made,
        f"""00 00 02 01 02 -> 00 C1 01 40
            00 E1 01 40 -> 00 00 02 F1 F2
            00 C0 00 -> 00 E0 00
            {long} -> 00 00 02 F1 F2""",
    )
    assert application.heard[-1] == bytes([7]) * 64


def test_nodes_are_addressed() -> None:
    made, _ = card()
    play(made, "21 00 02 01 02 -> 12 00 02 F1 F2")


def test_an_empty_i_block_is_no_command() -> None:
    made, application = card()
    play(made, "00 00 00 -> 00 00 00")
    assert application.commands == 0


def test_a_card_that_refuses_ifs() -> None:
    made, _ = card(accepts_ifs=False)
    play(made, "00 C1 01 FE -> 00 82 00\n00 00 02 01 02 -> 00 00 02 F1 F2")
    assert made.ifsd == 32


def test_reset_begins_anew() -> None:
    made, _ = card()
    play(made, "00 00 02 01 02 -> 00 00 02 F1 F2\n00 C1 01 FE -> 00 E1 01 FE")
    made.reset()
    assert made.ifsd == 32
    play(made, "00 00 02 01 02 -> 00 00 02 F1 F2")


# Check bytes ----------------------------------------------------------------------------------


@given(st.binary(max_size=260))
def test_lrc(data: bytes) -> None:
    assert lrc(data) == reduce(xor, data, 0)


def division(data: bytes) -> int:
    """The remainder of the division by x^16 + x^12 + x^5 + 1, bit by bit in the order of the
    line."""
    rest = 0xFFFF
    for byte in data:
        for bit in range(8):
            low = (rest ^ byte >> bit) & 1
            rest = rest >> 1 ^ (0x8408 if low else 0)
    return rest


@given(st.binary(max_size=260))
def test_crc(data: bytes) -> None:
    assert Check.CRC.of(data) == division(data).to_bytes(2, "big")
    assert Check.CRC_13239.of(data) == (division(data) ^ 0xFFFF).to_bytes(2, "little")


def test_crc_as_catalogues_have_it() -> None:
    assert Check.CRC.of(b"123456789").hex() == "6f91"
    assert Check.CRC_13239.of(b"123456789").hex() == "6e90"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("00 C1 01 FE 54 4E", "00 E1 01 FE 57 75"), ("00 81 00 AC 27", "00 81 00 AC 27")],
)
def test_crc_on_the_line(sent: str, expected: str) -> None:
    """Blocks recorded between readers and a card with a CRC."""
    made = T1Card(Fixed("9000").transmit, check=Check.CRC)
    if sent.startswith("00 81"):
        made.receive(bytes.fromhex("00 C1 01 FE EC D1"))
    assert joined(made.receive(bytes.fromhex(sent))).hex(" ").upper() == expected


def test_a_card_with_a_crc_hears_no_lrc() -> None:
    made = T1Card(Fixed("9000").transmit, check=Check.CRC)
    answer = joined(made.receive(with_lrc("00 C1 01 FE")))
    assert answer[:3] == bytes.fromhex("00 82 00")


# Faults ---------------------------------------------------------------------------------------

I_BLOCK = with_lrc("00 00 02 F1 F2")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.corrupt(), [I_BLOCK[:-1] + bytes((I_BLOCK[-1] ^ 1,))]),
        (faults.silence(), []),
        (faults.doubled(), [I_BLOCK, I_BLOCK]),
        (faults.replaced(b"\1\2"), [b"\1\2"]),
        (faults.cut_short(2), [I_BLOCK[:2]]),
        (faults.cut_short(0), [b""]),
        (faults.followed_by(b"\xff"), [I_BLOCK + b"\xff"]),
        (faults.wrong_nad(), [with_lrc("12 00 02 F1 F2")]),
        (faults.wrong_pcb(0x1F), [with_lrc("00 1F 02 F1 F2")]),
        (faults.wrong_ns(), [with_lrc("00 40 02 F1 F2")]),
        (faults.wrong_len(1), [with_lrc("00 00 03 F1 F2")]),
        (faults.wrong_inf(b"\5"), [with_lrc("00 00 01 05")]),
        (faults.pause(2, 9.0), [I_BLOCK[:2], I_BLOCK[2:]]),
        (faults.corrupt(on="R"), [I_BLOCK]),
        (faults.corrupt(after=1), [I_BLOCK]),
        (faults.wrong_nr(), [I_BLOCK]),
    ],
)
def test_faults(fault: ContactFault, expected: list[bytes]) -> None:
    made, application = card("F1 F2", fault)
    assert [one.data for one in made.receive(with_lrc("00 00 02 01 02"))] == expected
    assert joined(made.receive(with_lrc("00 81 00")))[:2] in (I_BLOCK[:2], b"\0\0")
    assert application.commands == 1


def test_faults_of_time_and_parity() -> None:
    made, _ = card("F1 F2", faults.late(2.5), faults.parity_error(after=1), faults.pause(1, 3.0))
    ask, again = with_lrc("00 00 02 01 02"), with_lrc("00 81 00")
    assert made.receive(ask) == [Sent(2.5, I_BLOCK[:1]), Sent(3.0, I_BLOCK[1:])]
    assert made.receive(again) == [Sent(0.0, I_BLOCK, parity_error=True)]
    assert made.receive(again) == [Sent(0.0, I_BLOCK)]


def test_one_turn_late() -> None:
    made, _ = card("F1 F2", faults.one_turn_late(times=2))
    assert made.receive(with_lrc("00 00 02 01 02")) == []
    assert made.receive(with_lrc("00 81 00")) == [Sent(0.0, I_BLOCK)]
    assert made.receive(with_lrc("00 40 02 01 02")) == [Sent(0.0, with_lrc("00 40 02 F1 F2"))]


def test_time_without_end() -> None:
    made, application = card("F1 F2", faults.asks_wtx(1, times=None))
    assert say(made, "00 00 02 01 02") == "00 C3 01 01"
    for _ in range(50):
        assert say(made, "00 E3 01 01") == "00 C3 01 01"
    assert application.commands == 1


def test_blocks_longer_than_ifsd() -> None:
    made, _ = card("F1" * 100, ignores_ifsd=True)
    assert say(made, "00 00 02 01 02")[:8] == "00 00 64"


# Random conversations -------------------------------------------------------------------------


def spoken(card: T1Card, apdu: bytes, state: list[int], ifsd: int, noise: random.Random) -> bytes:
    """An interface device on a bad line sends one APDU and receives the response. ``state`` has
    N(S) of the next I-block of the interface device and of the card."""
    parts = [apdu[i : i + card.ifsc] for i in range(0, len(apdu), card.ifsc)]
    response = b""

    def part() -> bytes:
        more = 0x20 if len(parts) > 1 else 0
        return block(state[0] << 6 | more, parts[0], card.check)

    out = part()
    while True:
        heard = bytearray(out)
        if noise.random() < 0.05:
            heard[noise.randrange(len(heard))] ^= 1 << noise.randrange(8)
        answer = joined(card.receive(bytes(heard)))
        if not answer or noise.random() < 0.05:
            out = block(0x81 | state[1] << 4, b"", card.check)
            continue
        pcb, inf = answer[1], answer[3:-1]
        if kind(answer) == "R":
            is_asked_again = bool(parts) and pcb >> 4 & 1 == state[0]
            if not is_asked_again and len(parts) > 1:
                parts.pop(0)
                state[0] ^= 1
                is_asked_again = True
            out = part() if is_asked_again else block(0x81 | state[1] << 4, b"", card.check)
            continue
        if parts:
            assert len(parts) == 1, "a response to half a command"
            parts.clear()
            state[0] ^= 1
        assert pcb >> 6 == state[1]
        assert len(inf) <= ifsd
        state[1] ^= 1
        response += inf
        if not pcb & 0x20:
            return response
        out = block(0x80 | state[1] << 4, b"", card.check)


@pytest.mark.parametrize("seed", range(10))
def test_every_command_is_carried_out_once_whatever_the_line(seed: int) -> None:
    noise = random.Random(seed)
    echo = EchoCard()
    made = T1Card(echo.transmit, T1Options(attempts=1000), ifsc=noise.randrange(5, 255))
    made.ifsd = ifsd = noise.randrange(5, 255)
    state = [0, 0]
    for n in range(1, 40):
        data = noise.randbytes(noise.randrange(1, 600))
        extended = len(data) > 255 or noise.random() < 0.5
        apdu = CommandApdu(
            0, 0x30, 0, 0, data, 65536 if extended else 256, extended=extended
        ).build()
        assert spoken(made, apdu, state, ifsd, noise) == data + b"\x90\x00"
        assert echo.commands == n


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_noise_breaks_nothing(blocks: list[bytes]) -> None:
    made, _ = card(attempts=1000)
    for data in blocks:
        made.receive(data)
        made.receive(data + bytes((reduce(xor, data, 0),)))
    assert say(made, "00 C0 00") == "00 E0 00"
    assert say(made, "00 00 02 01 02") == "00 00 02 F1 F2"
