"""T=1 with blocks written by hand: the scenarios of ISO/IEC 7816-3:2006, annex A, and violations of
the protocol by a card."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import reduce
from operator import xor
from typing import TypeVar

import pytest

from ccid.errors import CardMute, InvalidApdu, ProtocolError
from ccid.iso7816.error_detection import CRC, crc, crc_inverted, lrc
from ccid.iso7816.t1 import MAX_NOTICES, T1, Block, LinkError, Reply

MUTE, PARITY, OTHER = LinkError.MUTE, LinkError.PARITY, LinkError.OTHER
APDU = bytes.fromhex("00A40400")
OK = "9000"
Step = tuple[str, "str | LinkError"]
R = TypeVar("R")


def block(text: str) -> bytes:
    """The block ``PCB INF``, given in hexadecimal, with NAD 00 and LRC."""
    pcb, inf = text[:2], bytes.fromhex(text[2:])
    body = bytes((0, int(pcb, 16), len(inf))) + inf
    return body + bytes((reduce(xor, body),))


def play(machine: Generator[Block, Reply, R], script: Sequence[Step]) -> R:
    """Drive ``machine`` by a list of expected blocks and answers."""
    sent = next(machine)
    for n, (expected, answer) in enumerate(script):
        assert sent.data == block(expected), f"step {n}: {sent.data.hex(' ')}"
        try:
            sent = machine.send(answer if isinstance(answer, LinkError) else block(answer))
        except StopIteration as done:
            assert n == len(script) - 1
            value: R = done.value
            return value
    raise AssertionError(f"it goes on: {sent.data.hex(' ')}")


I0 = "00" + APDU.hex()
I1 = "40" + APDU.hex()


def test_lrc_is_the_exclusive_or() -> None:
    for size in (1, 3, 4, 100, 257, 258):
        data = bytes((7 * i + size) & 255 for i in range(size))
        assert lrc(data) == bytes((reduce(xor, data),))


def test_crc_check_values() -> None:
    """The CRC of the string 123456789, as catalogues of CRCs list it."""
    assert crc(b"123456789").hex() == "6f91"
    assert crc_inverted(b"123456789").hex() == "6e90"
    assert len({code(b"123456789") for code in CRC}) == 4


# Without errors -------------------------------------------------------------------------------


def test_commands_alternate() -> None:
    """Scenario 1: N(S) of both sides alternates over commands."""
    t1 = T1()
    assert play(t1.exchange(APDU), [(I0, "00" + OK)]).hex() == OK
    assert play(t1.exchange(APDU), [(I1, "40" + OK)]).hex() == OK
    assert play(t1.exchange(APDU), [(I0, "00" + OK)]).hex() == OK


def test_waiting_time_extension() -> None:
    """Scenario 2: the multiplier holds for one block."""
    t1 = T1()
    machine = t1.exchange(APDU)
    assert next(machine).multiplier == 0
    extended = machine.send(block("C307"))
    assert (extended.data, extended.multiplier) == (block("E307"), 7)
    again = machine.send(block("C301"))
    assert (again.data, again.multiplier) == (block("E301"), 1)
    asked = machine.send(PARITY)
    assert (asked.data, asked.multiplier) == (block("81"), 0)
    with pytest.raises(StopIteration) as done:
        machine.send(block("00" + OK))
    assert done.value.value.hex() == OK


def test_a_waiting_time_extension_by_nothing() -> None:
    """The clause reserves no multiplier: one of 0 is granted, and the answer has its ordinary
    time."""
    machine = T1().exchange(APDU)
    next(machine)
    granted = machine.send(block("C300"))
    assert (granted.data, granted.multiplier) == (block("E300"), 0)
    with pytest.raises(StopIteration) as done:
        machine.send(block("00" + OK))
    assert done.value.value.hex() == OK


def test_the_card_changes_ifsc() -> None:
    """Scenario 3: S(IFS request) comes in place of an answer; then blocks are longer."""
    t1 = T1(32)
    assert play(t1.exchange(APDU), [(I0, "C140"), ("E140", "00" + OK)]).hex() == OK
    assert t1.ifsc == 0x40
    long = bytes(range(80))
    script = [("60" + long[:64].hex(), "80"), ("00" + long[64:].hex(), "40" + OK)]
    assert play(t1.exchange(long), script).hex() == OK


def test_ifsd_is_announced() -> None:
    """Scenario 4."""
    t1 = T1()
    assert play(t1.announce_ifsd(254), [("C1FE", "E1FE")]) == 254
    assert t1.ifsd == 254


def test_chaining_both_ways() -> None:
    """Scenarios 5 and 6."""
    t1 = T1(4)
    command = bytes(range(10))
    script = [
        ("20" + "00010203", "90"),
        ("60" + "04050607", "80"),
        ("00" + "0809", "20" + "AA"),
        ("90", "60" + "BB"),
        ("80", "00" + OK),
    ]
    assert play(t1.exchange(command), script).hex().upper() == "AABB" + OK


def test_the_way_to_the_card_limits_blocks() -> None:
    t1 = T1(254, max_inf=4)
    assert play(t1.exchange(bytes(6)), [("2000000000", "90"), ("400000", "00" + OK)]).hex() == OK


def test_node_addresses() -> None:
    t1 = T1(nad=0x21)
    machine = t1.exchange(APDU)
    assert next(machine).data[0] == 0x21
    answer = bytes.fromhex("120002") + b"\x90\x00"
    with pytest.raises(StopIteration):
        machine.send(answer + lrc(answer))


# One block in each direction --------------------------------------------------------------------


def test_a_command_that_fits_into_one_block() -> None:
    t1 = T1(10, nad=0x21)
    assert t1.single(bytes(3)) is None
    for size in (4, 10):
        apdu = bytes(range(size))
        body = bytes((0x21, 0, size)) + apdu
        assert t1.single(apdu) == body + lrc(body)
        t1.not_sent()
    assert t1.single(bytes(11)) is None
    assert T1(10, max_inf=9).single(bytes(10)) is None
    assert T1(10, max_inf=10).single(bytes(10)) is not None
    assert T1(254, crc=True).single(APDU) is None


def test_one_block_each_is_the_same_exchange() -> None:
    """N(S) of both sides goes on, whichever way a command takes."""
    t1 = T1()
    assert t1.single(APDU) == block(I0)
    assert t1.single_answer(block("00" + OK)) == bytes.fromhex(OK)
    assert t1.blocks == 1
    assert t1.single(APDU) == block(I1)
    assert t1.single_answer(block("40AA" + OK)) == bytes.fromhex("AA" + OK)
    assert t1.blocks == 2
    assert play(t1.exchange(APDU), [(I0, "00" + OK)]).hex() == OK
    assert t1.blocks == 3
    assert t1.single(APDU) == block(I1)


@pytest.mark.parametrize(
    "answer",
    [
        MUTE,
        b"",
        b"\0",
        b"\0\0",
        b"\0\0\2",
        bytes.fromhex("00 00 01 90"),
        bytes.fromhex("00 00 01 90 91"),  # no status word
        bytes.fromhex("01 00 02 90 00 93"),  # another NAD
        bytes.fromhex("00 40 02 90 00 D2"),  # another N(S)
        bytes.fromhex("00 20 02 90 00 B2"),  # M = 1
        bytes.fromhex("00 00 02 90 00 93"),  # wrong LRC
        bytes.fromhex("00 00 03 90 00 93"),  # shorter than LEN
        bytes.fromhex("00 00 01 90 00 91"),  # longer than LEN
        bytes.fromhex("00 00 02 90 00 00 92"),
        block("00" + "11" * 31 + OK),  # longer than IFSD
        block("C301"),
        block("80"),
        bytearray(block("00" + OK)),
    ],
)
def test_another_answer_goes_the_long_way(answer: Reply) -> None:
    """The same I-block comes first there, and the answer is judged as its answer."""
    t1 = T1()
    assert t1.single(APDU) == block(I0)
    assert t1.single_answer(answer) is None
    assert t1.blocks == 0
    machine = t1.exchange(APDU)
    assert next(machine).data == block(I0)


def test_the_longest_block_that_ifsd_allows() -> None:
    t1 = T1()
    t1.single(APDU)
    assert t1.single_answer(block("00" + "11" * 30 + OK)) == bytes.fromhex("11" * 30 + OK)


def test_an_unanswered_block_leaves_the_two_out_of_step() -> None:
    t1 = T1()
    t1.single(APDU)
    assert t1.single(APDU) is None
    assert next(t1.exchange(APDU)) == Block(block("C0"), 0)
    assert play(t1.exchange(APDU), [("C0", "E0"), (I0, "00" + OK)]).hex() == OK
    t1.single(APDU)
    t1.not_sent()
    assert t1.single(APDU) == block(I1)
    t1.not_sent()
    t1.interrupted()
    assert t1.single(APDU) is None
    assert play(t1.exchange(APDU), [("C0", "E0"), (I0, "00" + OK)]).hex() == OK


# Errors ---------------------------------------------------------------------------------------


def answer_to(pcb: int, inf: bytes) -> str:
    """What ISO/IEC 7816-3:2006 11.3.2.2 and 11.6 ask for after the only I-block of a command, N(S)
    of both sides being 0: the next block, or "end"."""
    if pcb < 0x80:
        if pcb & 0x5F:  # reserved bits, or another N(S)
            return "82"
        return "90" if pcb == 0x20 else "end"
    if pcb < 0xC0:
        if inf or pcb & 0x2C or pcb & 0x10:  # reserved bits; there is no next I-block
            return "82"
        return I0
    if pcb == 0xC1 and len(inf) == 1 and 0 < inf[0] < 255:
        return "E1" + inf.hex()
    if pcb == 0xC2 and not inf:
        return "E2"
    if pcb == 0xC3 and len(inf) == 1:
        return "E3" + inf.hex()
    return "82"


@pytest.mark.parametrize("inf", ["", "00", "01", "20", "FE", "FF", OK, "11" * 32, "11" * 33])
def test_every_pcb(inf: str) -> None:
    for pcb in range(256):
        machine = T1().exchange(APDU)
        next(machine)
        data = bytes.fromhex(inf)
        expected = answer_to(pcb, data)
        if pcb < 0x80 and len(data) > 32:  # IFSD
            expected = "82"
        if expected != "end":
            assert machine.send(block(f"{pcb:02X}{inf}")).data == block(expected), hex(pcb)
        elif len(data) < 2:
            with pytest.raises(ProtocolError, match=f"a response of {len(data)} bytes") as failed:
                machine.send(block(f"{pcb:02X}{inf}"))
            assert failed.value.may_have_executed
        else:
            with pytest.raises(StopIteration) as done:
                machine.send(block(f"{pcb:02X}{inf}"))
            assert done.value.value == data


def test_what_makes_an_error_forgotten() -> None:
    """Two errors in succession are borne, and the count begins again after a block that continues
    the exchange, and after a WTX."""
    parts: list[Step] = [(I0, "20AA"), ("90", PARITY), ("90", PARITY), ("90", "60BB")]
    more: list[Step] = [("80", PARITY), ("80", PARITY), ("80", "00" + OK)]
    assert play(T1().exchange(APDU), [*parts, *more]).hex() == "aabb" + OK
    waits: list[Step] = [(I0, PARITY), ("81", PARITY), ("81", "C301"), ("E301", PARITY)]
    assert play(T1().exchange(APDU), [*waits, ("81", PARITY), ("81", "00" + OK)]).hex() == OK
    chain: list[Step] = [("2000000000", PARITY), ("81", PARITY), ("81", "90")]
    rest: list[Step] = [("400000", PARITY), ("81", PARITY), ("81", "00" + OK)]
    assert play(T1(4).exchange(bytes(6)), [*chain, *rest]).hex() == OK


def test_a_request_of_the_card_does_not_make_an_error_forgotten() -> None:
    script: list[Step] = [(I0, PARITY), ("81", "C120"), ("E120", PARITY), ("81", PARITY)]
    with pytest.raises(ProtocolError, match="have lost each other"):
        play(T1().exchange(APDU), script)


def test_the_first_error_decides_what_the_r_block_says() -> None:
    """It is repeated unchanged."""
    for first, code in ((PARITY, "81"), (MUTE, "82"), (OTHER, "82")):
        for second in (PARITY, MUTE, OTHER):
            script: list[Step] = [(I0, first), (code, second), (code, "00" + OK)]
            assert play(T1().exchange(APDU), script).hex() == OK


def test_after_resynch_the_ifsc_of_the_atr_is_in_force() -> None:
    """Unless the card has announced a smaller one."""
    for announced, then in ((0x10, 0x10), (0x40, 32)):
        t1 = T1(32)
        play(t1.exchange(APDU), [(I0, f"C1{announced:02X}"), (f"E1{announced:02X}", "00" + OK)])
        assert t1.ifsc == announced
        t1.interrupted()
        play(t1.exchange(APDU), [("C0", "E0"), (I0, "00" + OK)])
        assert t1.ifsc == then


@pytest.mark.parametrize(("atr", "ifsc"), [(0, 1), (1, 1), (254, 254), (255, 254)])
def test_ifsc_has_bounds(atr: int, ifsc: int) -> None:
    assert T1(atr).ifsc == ifsc


def test_the_address_of_the_card_is_ours_turned_round() -> None:
    for nad, card in ((0x00, 0x00), (0x21, 0x12), (0x70, 0x07), (0x0F, 0xF0)):
        t1 = T1(nad=nad)
        machine = t1.exchange(APDU)
        next(machine)
        body = bytes((card, 0, 2)) + bytes.fromhex(OK)
        with pytest.raises(StopIteration) as done:
            machine.send(body + lrc(body))
        assert done.value.value.hex() == OK


def test_three_attempts_for_a_command_that_was_not_whole() -> None:
    """Each with three blocks, and S(RESYNCH) after each; nothing was carried out."""
    t1 = T1(4, name="X")
    attempt: list[Step] = [("2000000000", MUTE), ("82", MUTE), ("82", MUTE), ("C0", "E0")]
    with pytest.raises(ProtocolError) as failed:
        play(t1.exchange(bytes(6)), attempt * 3)
    assert str(failed.value) == ("X: card and reader have lost each other; nothing was carried out")
    assert (failed.value.may_have_executed, t1.blocks) == (False, 12)


def test_what_was_sent_whole_may_have_been_carried_out() -> None:
    with pytest.raises(ProtocolError) as failed:
        play(T1(name="X").exchange(APDU), [(I0, MUTE), ("82", MUTE), ("82", MUTE)])
    assert str(failed.value) == (
        "X: card and reader have lost each other; the command may have been carried out"
    )


def test_a_command_counts_for_itself() -> None:
    """That the command before was sent whole says nothing of a chain that was not."""
    t1 = T1(4)
    assert play(t1.exchange(APDU), [(I0, "00" + OK)]).hex() == OK
    lost: list[Step] = [("6000000000", MUTE), ("92", MUTE), ("92", MUTE)]
    again: list[Step] = [("C0", "E0"), ("2000000000", "90"), ("400000", "00" + OK)]
    assert play(t1.exchange(bytes(6)), [*lost, *again]).hex() == OK


def test_the_longest_response() -> None:
    """65,536 bytes and the status word, no byte more."""
    t1 = T1()
    t1.ifsd = 254
    for last, fits in ((6, True), (7, False)):
        machine = t1.exchange(APDU)
        next(machine)
        card = 0x40 if t1._nr else 0
        for _ in range(258):
            machine.send(block(f"{card | 0x20:02X}" + "00" * 254))
            card ^= 0x40
        assert 258 * 254 + last == 65538 + (not fits)
        if fits:
            with pytest.raises(StopIteration) as done:
                machine.send(block(f"{card:02X}" + "00" * last))
            assert len(done.value.value) == 65538
        else:
            with pytest.raises(ProtocolError, match="more than 65538"):
                machine.send(block(f"{card:02X}" + "00" * last))


@pytest.mark.parametrize("size", [4, 65544])
def test_the_shortest_and_the_longest_command(size: int) -> None:
    sent = next(T1(254).exchange(bytes(size)))
    assert sent.data[2] == min(size, 254)


INVALID: list[Reply] = [
    PARITY,
    b"",
    b"\0\0",
    bytes.fromhex("00 00 02 90 00 93"),  # wrong LRC
    bytes.fromhex("00 00 02 90 00"),  # no LRC
]
ODD = [
    "C1",
    "C1FF",
    "C100",
    "C3",
    "E3",
    "E0",
    "C0",
    "C20101",
    "FF",
    "A0",
    "8101",
    "01" + OK,
]


@pytest.mark.parametrize("bad", INVALID)
def test_an_invalid_answer_is_asked_for_again(bad: Reply) -> None:
    """Rule 7.1; the R-block says EDC or parity error."""
    machine = T1().exchange(APDU)
    assert next(machine).data == block(I0)
    assert machine.send(bad).data == block("81")
    with pytest.raises(StopIteration) as done:
        machine.send(block("00" + OK))
    assert done.value.value.hex() == OK


@pytest.mark.parametrize("odd", ODD)
def test_what_must_not_come_is_another_error(odd: str) -> None:
    machine = T1().exchange(APDU)
    next(machine)
    assert machine.send(block(odd)).data == block("82")


@pytest.mark.parametrize("error", [MUTE, OTHER])
def test_no_answer_is_asked_for(error: LinkError) -> None:
    script: list[Step] = [(I0, error), ("82", "00" + OK)]
    assert play(T1().exchange(APDU), script).hex() == OK


def test_wrong_nad_and_too_long() -> None:
    for bad in ("01 00 02 90 00", "00 00 FF" + "00" * 255):
        body = bytes.fromhex(bad)
        machine = T1().exchange(APDU)
        next(machine)
        assert machine.send(body + lrc(body)).data == block("82")


def test_blocks_are_held_to_ifsd() -> None:
    machine = T1().exchange(APDU)
    next(machine)
    assert machine.send(block("00" + "11" * 31 + OK)).data == block("82")


def test_the_card_asks_again() -> None:
    """Scenario 9 and similar: R(N(R)) names our block, which is sent again without change."""
    for code in ("80", "81", "82"):
        assert play(T1().exchange(APDU), [(I0, code), (I0, "00" + OK)]).hex() == OK


def test_an_r_block_is_repeated_as_it_was() -> None:
    """Rule 7.2, also for the acknowledgement of a chained block."""
    assert play(T1().exchange(APDU), [(I0, PARITY), ("81", MUTE), ("81", "00" + OK)]).hex() == OK
    script: list[Step] = [(I0, "20AA"), ("90", PARITY), ("90", "40" + OK)]
    assert play(T1().exchange(APDU), script).hex() == "aa" + OK


def test_a_block_of_the_card_twice_is_taken_once() -> None:
    script: list[Step] = [(I0, "20AA"), ("90", "20AA"), ("90", "40" + OK)]
    assert play(T1().exchange(APDU), script).hex() == "aa" + OK


def test_an_answer_in_the_middle_of_our_chain_is_an_error() -> None:
    """The reference driver accepts the answer and drops the rest of the command."""
    script: list[Step] = [("2000000000", "00" + OK), ("82", "90"), ("400000", "00" + OK)]
    assert play(T1(4).exchange(bytes(6)), script).hex() == OK


def test_a_waiting_time_extension_after_an_error() -> None:
    """Rule 7.3: after S(WTX response), an R-block answers an invalid block."""
    script: list[Step] = [(I0, "C302"), ("E302", PARITY), ("81", "C302"), ("E302", "00" + OK)]
    assert play(T1().exchange(APDU), script).hex() == OK


# Out of step ----------------------------------------------------------------------------------


def test_a_command_that_may_have_been_executed_is_not_sent_again() -> None:
    """Three invalid answers follow each other, and the last I-block had been sent."""
    with pytest.raises(ProtocolError) as error:
        play(T1().exchange(APDU), [(I0, PARITY), ("81", PARITY), ("81", PARITY)])
    assert error.value.may_have_executed


def test_then_the_next_one_begins_by_resynch() -> None:
    t1 = T1()
    with pytest.raises(ProtocolError):
        play(t1.exchange(APDU), [(I0, MUTE), ("82", MUTE), ("82", MUTE)])
    script: list[Step] = [("C0", MUTE), ("C0", "E0"), (I0, "00" + OK)]
    assert play(t1.exchange(APDU), script).hex() == OK


def test_a_chain_not_yet_whole_is_sent_anew() -> None:
    command = bytes(range(6))
    script: list[Step] = [
        ("2000010203", MUTE),
        ("82", MUTE),
        ("82", MUTE),
        ("C0", "E0"),
        ("2000010203", "90"),
        ("400405", "00" + OK),
    ]
    assert play(T1(4).exchange(command), script).hex() == OK


def test_resynch_is_tried_three_times() -> None:
    t1 = T1(4)
    script: list[Step] = [("2000000000", MUTE), ("82", MUTE), ("82", MUTE)]
    with pytest.raises(ProtocolError, match="RESYNCH") as error:
        play(t1.exchange(bytes(6)), [*script, ("C0", "00" + OK), ("C0", PARITY), ("C0", "90")])
    assert not error.value.may_have_executed


def test_a_card_that_asks_for_ever_is_left() -> None:
    """The reference driver sends the same block without end."""
    t1 = T1()
    with pytest.raises(ProtocolError) as error:
        play(t1.exchange(APDU), [(I0, "80")] * 3)
    assert error.value.may_have_executed
    assert t1.blocks == 3


def test_a_card_that_changes_ifsc_for_ever_is_left() -> None:
    t1 = T1()
    machine = t1.exchange(APDU)
    next(machine)
    with pytest.raises(ProtocolError):
        for _ in range(100):
            machine.send(block("C120"))
    assert t1.blocks < 12


def test_a_chain_that_loses_step_again_and_again_ends() -> None:
    t1 = T1(4)
    machine = t1.exchange(bytes(6))
    sent = next(machine)
    with pytest.raises(ProtocolError) as error:
        for _ in range(100):
            sent = machine.send(block("E0") if sent.data == block("C0") else MUTE)
    assert not error.value.may_have_executed


# ABORT ----------------------------------------------------------------------------------------


def test_the_card_gives_our_chain_up() -> None:
    """S(ABORT request) comes while the host sends a chain; then the card returns the right to
    send."""
    t1 = T1(4)
    script: list[Step] = [("2000000000", "C2"), ("E2", "90")]
    with pytest.raises(ProtocolError, match="gave the chain up") as error:
        play(t1.exchange(bytes(6)), script)
    assert not error.value.may_have_executed
    assert play(t1.exchange(APDU), [("C0", "E0"), (I0, "00" + OK)]).hex() == OK


def test_the_card_gives_our_chain_up_and_says_why() -> None:
    script: list[Step] = [("2000000000", "C2"), ("E2", "006700")]
    assert play(T1(4).exchange(bytes(6)), script).hex() == "6700"


def test_the_card_gives_its_own_chain_up() -> None:
    script: list[Step] = [(I0, "20AA"), ("90", "C2"), ("E2", "40" + OK)]
    assert play(T1().exchange(APDU), script).hex() == OK


@pytest.mark.parametrize(("request_", "response"), [("C2", "E2"), ("C120", "E120")])
def test_so_many_requests_in_succession_and_no_more(request_: str, response: str) -> None:
    few: list[Step] = [(I0, request_), *[(response, request_)] * (MAX_NOTICES - 1)]
    assert play(T1().exchange(APDU), [*few, (response, "00" + OK)]).hex() == OK
    with pytest.raises(ProtocolError):
        play(T1().exchange(APDU), [*few, (response, request_)])


# IFSD -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [0, 255, 256, 1000])
def test_an_impossible_ifsd_is_254(wanted: int) -> None:
    machine = T1().announce_ifsd(wanted)
    assert next(machine).data == block("C1FE")


def test_a_card_that_refuses_keeps_32() -> None:
    t1 = T1()
    machine = t1.announce_ifsd(254)
    next(machine)
    machine.send(block("82"))
    machine.send(block("E120"))
    with pytest.raises(StopIteration) as done:
        machine.send(block("82"))
    assert done.value.value == t1.ifsd == 32
    assert t1.blocks == 3


@pytest.mark.parametrize("ifsd", [1, 254])
def test_an_ifsd_is_announced_as_it_is(ifsd: int) -> None:
    t1 = T1()
    machine = t1.announce_ifsd(ifsd)
    with pytest.raises(StopIteration) as done:
        machine.send(block(f"E1{next(machine).data[3]:02X}"))
    assert done.value.value == t1.ifsd == ifsd


def test_a_card_that_answers_nothing_is_mute() -> None:
    machine = T1().announce_ifsd(254)
    next(machine)
    with pytest.raises(CardMute):
        for _ in range(3):
            machine.send(MUTE)


# CRC ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CRC)
def test_the_cards_own_crc_is_found(code: object) -> None:
    assert callable(code)
    t1 = T1(crc=True)
    machine = t1.announce_ifsd(254)
    sent, tries = next(machine), 0
    while True:
        tries += 1
        body, epilogue = sent.data[:-2], sent.data[-2:]
        answer = bytes.fromhex("00 E1 01 FE") if code(body) == epilogue else b"\0\x81\0"
        try:
            sent = machine.send(answer + code(answer))
        except StopIteration:
            break
    assert tries <= 2
    assert t1.ifsd == 254
    machine2 = t1.exchange(APDU)
    out = next(machine2).data
    assert code(out[:-2]) == out[-2:]


# Bad calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 3, 65545])
def test_no_apdu(size: int) -> None:
    with pytest.raises(InvalidApdu):
        next(T1().exchange(bytes(size)))


def test_a_response_without_status() -> None:
    machine = T1().exchange(APDU)
    next(machine)
    with pytest.raises(ProtocolError, match="1 bytes"):
        machine.send(block("0090"))


def test_a_response_without_end() -> None:
    t1 = T1()
    t1.ifsd = 254
    machine = t1.exchange(APDU)
    next(machine)
    with pytest.raises(ProtocolError, match="more than 65538"):
        for n in range(1000):
            machine.send(block(("60" if n & 1 else "20") + "00" * 254))
