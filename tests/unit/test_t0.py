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


@pytest.mark.parametrize(
    ("tpdu", "answers", "words", "may_have_executed"),
    [
        ("00B0000002", ["33"], "no procedure byte", True),  # without data the header is all
        ("00D6000002AABB", ["33"], "no procedure byte", False),  # the data are still here
        ("00D6000002AABB", ["29", "33"], "no procedure byte", True),
        ("00B0000002", ["B0", "11223344"], "no procedure byte", True),
        (
            "00B0000001",
            ["4F", "11B0", ""],
            "0 characters came where 1 were asked for|more data",
            True,
        ),
        ("00D6000001AA", ["D6", "29"], "more data than P3 announces", True),
        ("00D6000001AA", ["D6", "D6"], "more data than P3 announces", True),
        ("00B0000002", ["B0", "112233", "4F"], "no procedure byte", True),
        ("00B0000001", ["6060"], "X: 2 characters came where 1 were asked for", True),
        ("00B0000001", [""], "X: 0 characters came where 1 were asked for", True),
    ],
)
def test_whether_a_command_that_failed_may_have_executed(
    tpdu: str, answers: list[str], words: str, may_have_executed: bool
) -> None:
    machine = procedure(bytes.fromhex(tpdu), "X")
    next(machine)
    with pytest.raises(ProtocolError, match=words) as failed:
        for answer in answers:
            machine.send(bytes.fromhex(answer))
    assert str(failed.value).startswith("X: ")
    assert failed.value.may_have_executed is may_have_executed


def test_every_ack_and_its_complement() -> None:
    """Each INS that T=0 has: ACK is INS, or INS XOR FF; no other byte is, but NULL and SW1."""
    for ins in range(256):
        header = bytes((0, ins, 0, 0, 2))
        if ins >> 4 in (6, 9):
            with pytest.raises(InvalidApdu, match="6x or 9x"):
                next(procedure(header))
            continue
        for byte in range(256):
            machine = procedure(header)
            assert next(machine) == Characters(header, 1)
            if byte == 0x60 or byte >> 4 in (6, 9):
                assert machine.send(bytes((byte,))) == MORE
            elif byte == ins:
                assert machine.send(bytes((byte,))) == Characters(b"", 4)
            elif byte == 255 - ins:
                assert machine.send(bytes((byte,))) == Characters(b"", 2)
            else:
                with pytest.raises(ProtocolError, match="no procedure byte"):
                    machine.send(bytes((byte,)))


@pytest.mark.parametrize(
    ("tpdu", "words"),
    [
        ("00A404", "3 bytes; a command APDU has at least 4"),
        ("00A4040003AABB", "P3 says 3 bytes of data, 2 follow"),
        ("00A4040001AABBCC", "P3 says 1 bytes of data, 3 follow"),
        ("00A4040000AABB", "P3 says 0 bytes of data, 2 follow"),
    ],
)
def test_a_tpdu_of_another_length_than_its_p3(tpdu: str, words: str) -> None:
    with pytest.raises(InvalidApdu, match=words):
        next(procedure(bytes.fromhex(tpdu)))


def test_a_le_after_no_data_is_not_sent() -> None:
    """P3 = 0 with one byte after it: the byte is Le, and the card may send up to 256 bytes."""
    machine = procedure(bytes.fromhex("00A404000000"))
    assert next(machine) == step("00A4040000", 1)
    assert machine.send(b"\xa4") == Characters(b"", 258)


def test_the_steps_tell_lengths_only() -> None:
    assert repr(step("00200081", 5)) == "Characters(data=<4 bytes>, expected=5)"


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


def test_the_bound_between_one_command_and_envelope() -> None:
    """255 bytes of data fit into a command, 256 do not (12.2.6)."""
    header = bytes.fromhex("00D60102")
    fits, longer = bytes(range(255)), bytes(range(256))
    short = CommandApdu(0, 0xD6, 1, 2, data=fits, extended=True).build()
    assert tpdus(short.hex(), ((header + b"\xff" + fits).hex(), "9000")) == "9000"
    apdu = CommandApdu(0, 0xD6, 1, 2, data=longer, extended=True).build()
    assert len(apdu) == 4 + 3 + 256
    script = [
        ("00C20000FF" + apdu[:255].hex(), "9000"),
        ("00C2000008" + apdu[255:].hex(), "6A80"),
    ]
    assert tpdus(apdu.hex(), *script) == "6A80"


def test_envelopes_in_a_row() -> None:
    """Each but the last must be answered by 9000; the response of the last is the command's."""
    for size in (255 * 2 - 7, 255 * 2 - 6, 255 * 3 - 7):
        apdu = CommandApdu(0x04, 0xD6, data=bytes(size), extended=True).build()
        parts = [apdu[start : start + 255] for start in range(0, len(apdu), 255)]
        assert len(parts) == {503: 2, 504: 3, 758: 3}[size]
        script = [(f"00C20000{len(part):02X}" + part.hex(), "9000") for part in parts]
        assert tpdus(apdu.hex(), *script) == "9000"
        script[-1] = (script[-1][0], "11229000")
        assert tpdus(apdu.hex(), *script) == "11229000"
        for stop in range(len(parts) - 1):
            refused = [*script[:stop], (script[stop][0], "6700")]
            assert tpdus(apdu.hex(), *refused) == "6700"


def test_the_response_to_an_envelope_is_fetched() -> None:
    apdu = CommandApdu(0x01, 0xCB, data=bytes(256), ne=300, extended=True).build()
    first, last = apdu[:255], apdu[255:]
    begun = [("01C20000FF" + first.hex(), "9000")]
    end = f"01C20000{len(last):02X}" + last.hex()
    assert tpdus(apdu.hex(), *begun, (end, "6102"), ("01C0000002", "11229000")) == "11229000"
    # without 61xx: case 4S.2
    fetched = [(end, "9000"), ("01C0000000", "6C03"), ("01C0000003", "1122339000")]
    assert tpdus(apdu.hex(), *begun, *fetched) == "1122339000"


@pytest.mark.parametrize(
    ("le", "p3"), [(1, "01"), (2, "02"), (255, "FF"), (256, "00"), (257, "00"), (300, "00")]
)
def test_p3_of_a_case_2_command(le: int, p3: str) -> None:
    """More than 256 bytes are asked for by P3 = 0 (12.2.3)."""
    apdu = CommandApdu(0, 0xB0, ne=le, extended=le > 256).build()
    assert tpdus(apdu.hex(), ("00B00000" + p3, "6A82")) == "6A82"


def test_a_wrong_le_counts_only_without_data() -> None:
    assert tpdus("00B0000003", ("00B0000003", "11226C02")) == "11226C02"


def test_more_than_the_caller_wants_is_cut_off() -> None:
    again = ("00B0000004", "112233446282")
    assert tpdus("00B0000002", ("00B0000002", "6C04"), again) == "11226282"
    assert tpdus("00B0000003", ("00B0000003", "6C04"), again) == "1122336282"
    assert tpdus("00B0000004", ("00B0000004", "6C04"), again) == "112233446282"


def test_61xx_asks_for_no_more_than_ne() -> None:
    apdu = "00A4040001AA"
    for ne, count in ((1, "01"), (4, "04"), (5, "05"), (6, "05"), (0, "05")):
        script = [(apdu, "6105"), (f"00C00000{count}", "00" * int(count, 16) + "9000")]
        assert tpdus(f"{apdu}{ne:02X}", *script) == "00" * int(count, 16) + "9000"
    # complete with Ne bytes: what the card has beyond them stays there, and its status says so
    script = [(apdu, "6105"), ("00C0000004", "112233446101")]
    assert tpdus(apdu + "04", *script) == "112233446101"
    script = [(apdu, "6102"), ("00C0000002", "11226103"), ("00C0000002", "33449000")]
    assert tpdus(apdu + "04", *script) == "112233449000"


def test_data_that_come_with_9000_are_the_response() -> None:
    """No GET RESPONSE after a case 4 command that was answered with data."""
    assert tpdus("00A4040001AA00", ("00A4040001AA", "119000")) == "119000"
    assert tpdus("00A4040001AA", ("00A4040001AA", "9000")) == "9000"
    assert tpdus("00A4040001AA00", ("00A4040001AA", "9001")) == "9001"


def test_a_response_without_status_word() -> None:
    for answer, count in (("", 0), ("90", 1)):
        machine = command(bytes.fromhex("00A40400"))
        next(machine)
        with pytest.raises(ProtocolError, match=f"{count} bytes in answer to a command") as failed:
            machine.send(bytes.fromhex(answer))
        assert failed.value.may_have_executed


def test_the_class_of_get_response_for_every_class() -> None:
    """ISO/IEC 7816-4:2013 5.4.1: 000x xxxx has chaining, secure messaging and a channel of two
    bits; 01xx xxxx secure messaging, chaining and a channel of four bits; others are not ours."""
    for cla in range(255):
        if cla < 0x20:
            expected = cla % 4
        elif 0x40 <= cla < 0x80:
            expected = 0x40 + cla % 16
        else:
            expected = cla
        script = [(f"{cla:02X}A4040001AA", "6101"), (f"{expected:02X}C0000001", "119000")]
        assert tpdus(f"{cla:02X}A4040001AA00", *script) == "119000"


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
