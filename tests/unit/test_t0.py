"""T=0, written by hand: procedure bytes (ISO/IEC 7816-3:2006 10.3) and APDUs in TPDUs (12.2)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.errors import InvalidApdu, ProtocolError
from ccid.iso7816.apdu import CommandApdu
from ccid.iso7816.t0 import Characters, command, procedure

Step = TypeVar("Step")


def play(machine: Generator[Step, bytes, bytes], script: Sequence[tuple[Step, str]]) -> str:
    """Drive ``machine`` by a list of expected requests and answers; returns the result in
    hexadecimal."""
    asked = next(machine)
    for n, (expected, answer) in enumerate(script):
        assert asked == expected, f"step {n}"
        try:
            asked = machine.send(bytes.fromhex(answer))
        except StopIteration as done:
            assert n == len(script) - 1
            return str(done.value.hex().upper())
    raise AssertionError(f"it goes on: {asked}")


def step(data: str, expected: int) -> Characters:
    return Characters(bytes.fromhex(data), expected)


MORE = Characters(b"", 1)

# Characters -----------------------------------------------------------------------------------


def test_no_data() -> None:
    """A command header of four bytes gets P3 = 0."""
    script = [(step("00A4040000", 1), "90"), (MORE, "00")]
    assert play(procedure(bytes.fromhex("00A40400")), script) == "9000"


def test_data_to_the_card_at_once() -> None:
    script = [(step("00D6000002", 1), "D6"), (step("AABB", 1), "90"), (MORE, "00")]
    assert play(procedure(bytes.fromhex("00D6000002AABB")), script) == "9000"


def test_data_to_the_card_byte_by_byte() -> None:
    script = [
        (step("00D6000003", 1), "29"),
        (step("AA", 1), "29"),
        (step("BB", 1), "D6"),
        (step("CC", 1), "90"),
        (MORE, "00"),
    ]
    assert play(procedure(bytes.fromhex("00D6000003AABBCC")), script) == "9000"


def test_data_from_the_card_at_once() -> None:
    """SW1 SW2 come with the data: the card always sends them."""
    script = [(step("00B0000003", 1), "B0"), (Characters(b"", 5), "1122339000")]
    assert play(procedure(bytes.fromhex("00B0000003")), script) == "1122339000"


def test_data_from_the_card_byte_by_byte() -> None:
    """The reference driver waits for a procedure byte that it has not requested."""
    script = [
        (step("00B0000002", 1), "4F"),
        (Characters(b"", 2), "11B0"),
        (Characters(b"", 3), "229000"),
    ]
    assert play(procedure(bytes.fromhex("00B0000002")), script) == "11229000"


def test_nulls_at_every_place() -> None:
    script = [
        (step("00B0000001", 1), "60"),
        (MORE, "60"),
        (MORE, "B0"),
        (Characters(b"", 3), "116060"),
        (MORE, "90"),
        (MORE, "00"),
    ]
    assert play(procedure(bytes.fromhex("00B0000001")), script) == "119000"
    script = [
        (step("00D6000001", 1), "60"),
        (MORE, "D6"),
        (step("AA", 1), "60"),
        (MORE, "90"),
        (MORE, "00"),
    ]
    assert play(procedure(bytes.fromhex("00D6000001AA")), script) == "9000"


def test_a_thousand_nulls() -> None:
    machine = procedure(bytes.fromhex("00A40400"))
    next(machine)
    for _ in range(1000):
        assert machine.send(b"\x60") == MORE
    assert machine.send(b"\x90") == MORE


def test_256_bytes() -> None:
    script = [(step("00B0000000", 1), "B0"), (Characters(b"", 258), "AB" * 256 + "9000")]
    assert play(procedure(bytes.fromhex("00B0000000")), script) == "AB" * 256 + "9000"


def test_fewer_characters_than_asked_for_are_not_the_end() -> None:
    script = [
        (step("00B0000003", 1), "B0"),
        (Characters(b"", 5), "11"),
        (Characters(b"", 4), "2233"),
        (MORE, "90"),
        (MORE, "00"),
    ]
    assert play(procedure(bytes.fromhex("00B0000003")), script) == "1122339000"


def test_an_early_status() -> None:
    script = [(step("00B0000003", 1), "6C"), (MORE, "10")]
    assert play(procedure(bytes.fromhex("00B0000003")), script) == "6C10"


def test_case_4_goes_as_case_3() -> None:
    script = [(step("00A4040001", 1), "A4"), (step("AA", 1), "61"), (MORE, "20")]
    assert play(procedure(bytes.fromhex("00A4040001AA00")), script) == "6120"


@pytest.mark.parametrize("tpdu", ["", "00A404", "0060040000", "0090040000", "00A4040003AABB"])
def test_what_is_no_tpdu(tpdu: str) -> None:
    with pytest.raises(InvalidApdu):
        next(procedure(bytes.fromhex(tpdu)))


@pytest.mark.parametrize(
    ("tpdu", "answers"),
    [
        ("00B0000001", ["33"]),  # no procedure byte
        ("00B0000001", ["B0", "11B0"]),  # data beyond P3
        ("00D6000001AA", ["D6", "D6"]),  # asks for data beyond P3
        ("00B0000001", ["B000"]),  # more than asked for
        ("00B0000001", [""]),  # nothing
    ],
)
def test_what_a_card_must_not_do(tpdu: str, answers: list[str]) -> None:
    machine = procedure(bytes.fromhex(tpdu))
    next(machine)
    with pytest.raises(ProtocolError):
        for answer in answers:
            machine.send(bytes.fromhex(answer))


def test_an_error_holds_no_byte_of_the_card() -> None:
    machine = procedure(bytes.fromhex("0020008104 31323334"))
    next(machine)
    with pytest.raises(ProtocolError) as failed:
        machine.send(bytes.fromhex("37"))
    assert "37" not in str(failed.value)
    with pytest.raises(InvalidApdu) as wrong:  # a PIN that the user typed without the header
        next(procedure(bytes.fromhex("1397531973")))
    assert "97" not in str(wrong.value)


# Commands -------------------------------------------------------------------------------------


def tpdus(apdu: str, *script: tuple[str, str]) -> str:
    """The TPDUs of ``apdu``, one after the other."""
    steps = [(bytes.fromhex(sent), answer) for sent, answer in script]
    return play(command(bytes.fromhex(apdu)), steps)


def test_case_1() -> None:
    assert tpdus("00A40400", ("00A40400", "9000")) == "9000"


def test_case_2() -> None:
    assert tpdus("00B0000002", ("00B0000002", "11229000")) == "11229000"
    assert tpdus("00B0000005", ("00B0000005", "6C02"), ("00B0000002", "11229000")) == "11229000"
    assert tpdus("00B0000001", ("00B0000001", "6C02"), ("00B0000002", "11229000")) == "119000"
    assert tpdus("00B0000000", ("00B0000000", "116101"), ("00C0000001", "229000")) == "11229000"


def test_case_3() -> None:
    assert tpdus("00D6000001AA", ("00D6000001AA", "9000")) == "9000"
    assert tpdus("00D6000001AA", ("00D6000001AA", "6110")) == "6110"


def test_case_4() -> None:
    apdu = "00A4040001AA"
    assert tpdus(apdu + "00", (apdu, "6102"), ("00C0000002", "11229000")) == "11229000"
    assert tpdus(apdu + "01", (apdu, "6102"), ("00C0000001", "119000")) == "119000"
    assert tpdus(apdu + "00", (apdu, "9000"), ("00C0000000", "6C01"), ("00C0000001", "119000"))
    assert tpdus(apdu + "00", (apdu, "6A82")) == "6A82"
    assert (
        tpdus(apdu + "00", (apdu, "6100"), ("00C0000000", "11" * 256 + "9000"))
        == "11" * 256 + "9000"
    )


def test_the_response_in_many_parts() -> None:
    apdu = "80CA000001AA"
    script = [
        (apdu, "6100"),
        ("80C0000000", "AA" * 256 + "6105"),
        ("80C0000005", "BB" * 5 + "9000"),
    ]
    assert tpdus("80CA00000000 01AA 0000", *script) == "AA" * 256 + "BB" * 5 + "9000"


def test_extended_case_2() -> None:
    script = [("00B0000000", "AA" * 256 + "6110"), ("00C0000010", "BB" * 16 + "9000")]
    assert tpdus("00B00000000200", *script) == "AA" * 256 + "BB" * 16 + "9000"


def test_extended_case_3_goes_by_envelope() -> None:
    data = bytes(range(250)) + bytes(50)
    apdu = CommandApdu(0x00, 0xD6, data=data, extended=True).build()
    first, last = apdu[:255], apdu[255:]
    script = [
        ("00C20000FF" + first.hex(), "9000"),
        (f"00C20000{len(last):02X}" + last.hex(), "9000"),
    ]
    assert tpdus(apdu.hex(), *script) == "9000"
    assert tpdus(apdu.hex(), (script[0][0], "6D00")) == "6D00"


def test_channel_stays_and_secure_messaging_goes() -> None:
    assert tpdus("0EA4040001AA00", ("0EA4040001AA", "6101"), ("02C0000001", "119000"))
    assert tpdus("65A4040001AA00", ("65A4040001AA", "6101"), ("45C0000001", "119000"))
    assert tpdus("A0A4040001AA00", ("A0A4040001AA", "6101"), ("A0C0000001", "119000"))


def test_a_card_that_goes_round_in_circles() -> None:
    with pytest.raises(ProtocolError, match="does not send"):
        tpdus("00A4040001AA00", ("00A4040001AA", "6110"), ("00C0000010", "6110"))
    with pytest.raises(ProtocolError, match="6Cxx"):
        tpdus("00B0000005", ("00B0000005", "6C02"), ("00B0000002", "6C03"))


@given(
    st.binary(min_size=4, max_size=40),
    st.lists(st.binary(max_size=300), min_size=1, max_size=30),
)
def test_whatever_comes_ends(apdu: bytes, answers: list[bytes]) -> None:
    """The card answers at random: the machine ends, or raises an error of this library."""
    machines: list[Generator[object, bytes, bytes]] = [command(apdu), procedure(apdu)]
    for machine in machines:
        try:
            next(machine)
            for answer in answers:
                machine.send(answer)
        except (StopIteration, InvalidApdu, ProtocolError):
            continue
