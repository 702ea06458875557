"""``ccid-probe import`` on text of mails and web pages, and on descriptors in hexadecimal."""

from __future__ import annotations

import html
import json
import quopri
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ccid
from ccid.errors import MalformedDescriptor
from ccid.known.descriptor_figures import DeviceFigures
from ccid.probe.imported import devices
from tests.unit.conftest import Run
from tests.unit.printing import printed

DATA = Path(__file__).parent / "data"
PARSE = (DATA / "parse.txt").read_text("utf-8")
LSUSB = (DATA / "lsusb.txt").read_text("utf-8")
RAW = (
    "36 21 00 01 00 01 03 00 00 00 a0 0f 00 00 40 1f 00 00 00 01 2a 00 00 29 40 05 00 00 fe 00 "
    "00 00 00 00 00 00 00 00 00 00 ba 00 01 00 0e 01 00 00 ff ff 00 00 03 01"
)
"""The class descriptor of an SCR335, in lsusb's form for unknown descriptors."""
BYTES = bytes.fromhex(RAW)


def undecoded(raw: str, label: str = "** UNRECOGNIZED:", number: int = 11) -> str:
    """Output of lsusb with the class descriptor as bytes."""
    start = LSUSB.index("      ChipCard Interface")
    end = LSUSB.index("      Endpoint Descriptor", start)
    text = f"{LSUSB[:start]}      {label}  {raw}\n{LSUSB[end:]}"
    return text.replace("bInterfaceClass        11 Chip/SmartCard", f"bInterfaceClass  {number} x")


@pytest.fixture(scope="module")
def report() -> str:
    status, out, _ = printed("report", "--virtual", "08e6:5503")
    assert status == 0
    return out


def lines(change: Callable[[str], str]) -> Callable[[str], bytes]:
    return lambda text: "\n".join(change(line) for line in text.splitlines()).encode()


def encoded(text: str) -> str:
    return quopri.encodestring(text.encode(), quotetabs=True).decode()


FORMS: dict[str, Callable[[str], bytes]] = {
    "as it is": str.encode,
    "without indentation": lines(str.strip),
    "blanks collapsed": lines(lambda line: " ".join(line.split())),
    "quoted": lines(lambda line: f"> {line}"),
    "quoted twice": lines(lambda line: f">> {line}"),
    "quoted twice, apart": lines(lambda line: f"> > {line}"),
    "quoted by initials": lines(lambda line: f"LR> {line.strip()}"),
    "quoted in a mail": lambda text: (
        "My reader:\n\n" + "\n".join(f"> {line}" for line in text.splitlines()) + "\n-- \nJoe\n"
    ).encode(),
    "quoted-printable": lambda text: encoded(text).encode(),
    "quoted-printable, CRLF": lambda text: encoded(text).replace("\n", "\r\n").encode(),
    "quoted-printable, only the ends": lines(lambda line: f"{line}=20"),
    "a quotation, quoted-printable": lambda text: encoded(
        "\n".join(f"> {line}" for line in text.splitlines())
    ).encode(),
    "quoted-printable, quoted": lambda text: "\n".join(
        f"> {line}" for line in encoded(text).splitlines()
    ).encode(),
    "UTF-16 LE": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 LE without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16 BE without a mark": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "blanks that do not break": lambda text: text.replace("  ", "\xa0 ").encode(),
    "fenced": lambda text: f"```\n{text}\n```\n".encode(),
    "twice": lambda text: f"{text}\n{text}".encode(),
    "HTML": lambda text: html.escape("\n".join(f"> {line}" for line in text.splitlines())).encode(),
    "coloured": lines(lambda line: f"\x1b[1m{line}\x1b[0m"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", ["parse", "lsusb", "raw", "report"])
def test_every_form_gives_the_same_reader(report: str, source: str, form: str) -> None:
    text = {"parse": PARSE, "lsusb": LSUSB, "raw": undecoded(RAW), "report": report}[source]
    wanted = devices(text, "x")
    assert devices(FORMS[form](text), "x") == wanted


@pytest.mark.parametrize("codec", ["latin-1", "cp1252", "utf-8"])
def test_a_name_in_latin_1(codec: str) -> None:
    (device,) = devices(PARSE.replace("Example", "Véga").encode(codec), "x")
    assert device.manufacturer == "Véga"


@pytest.mark.parametrize("number", [11, 255])
@pytest.mark.parametrize(
    ("raw", "label"),
    [
        (RAW, "** UNRECOGNIZED:"),
        (RAW, "UNRECOGNIZED:"),
        (RAW.upper(), "DEVICE CLASS:"),
        ("\n".join(textwrap.wrap(RAW, 60)), "** UNRECOGNIZED:"),
        (f"{RAW[:40]}\n{RAW[40:95]}\n{RAW[95:]}", "** UNRECOGNIZED:"),
        (f"\n{RAW}", "** UNRECOGNIZED:"),
        (f"{RAW[:60]}\n> {RAW[60:]}", "** UNRECOGNIZED:"),
    ],
)
def test_a_class_descriptor_that_lsusb_does_not_decode(raw: str, label: str, number: int) -> None:
    (device,) = devices(undecoded(raw, label, number), "x")
    (interface,) = device.interfaces
    assert interface.descriptor.build() == BYTES
    assert interface.reader.interface.bInterfaceClass == number
    assert (device.id, interface.reader.misplaced) == ("08e6:4433", False)


def test_a_class_descriptor_that_is_cut_short() -> None:
    with pytest.raises(MalformedDescriptor, match="breaks off after 20 of 54 bytes"):
        devices(undecoded(RAW[:59]), "x")


def test_another_descriptor_that_lsusb_does_not_decode_is_none() -> None:
    with pytest.raises(MalformedDescriptor, match="no smart-card reader"):
        devices(undecoded("09 21 11 01 00 01 22 41 00"), "x")


def test_the_old_spelling_of_bClassEnvelope() -> None:  # noqa: N802 - the specification's name
    for text in (PARSE, LSUSB):
        old = text.replace("bClassEnvelope", "bClassEnveloppe")
        assert old != text
        assert devices(old, "x") == devices(text, "x")


# Hexadecimal ----------------------------------------------------------------------------------


def rows(layout: Callable[[int, bytes, str], str]) -> str:
    """A dump, 16 bytes a line."""
    found = []
    for place in range(0, len(BYTES), 16):
        row = BYTES[place : place + 16]
        found.append(layout(place, row, "".join(chr(b) if 32 <= b < 127 else "." for b in row)))
    return "\n".join(found)


def words(row: bytes) -> str:
    """A dump of 16-bit words by a little-endian machine."""
    pairs = [row[i : i + 2][::-1].hex() for i in range(0, len(row), 2)]
    return " ".join(pairs)


@pytest.mark.parametrize("source", ["parse", "lsusb", "raw"])
@pytest.mark.parametrize("before", ["| ", ": ", "+", "* ", "John> ", "Nov 28 21:00:07 h lsusb: "])
def test_lines_that_all_begin_the_same(source: str, before: str) -> None:
    text = {"parse": PARSE, "lsusb": LSUSB, "raw": undecoded(RAW)}[source]
    assert devices(lines(lambda line: f"{before}{line}")(text), "x") == devices(text, "x")


@pytest.mark.parametrize("source", ["parse", "lsusb", "raw"])
def test_lines_with_numbers_or_breaks_of_html(source: str) -> None:
    text = {"parse": PARSE, "lsusb": LSUSB, "raw": undecoded(RAW)}[source]
    wanted = devices(text, "x")
    rows = text.splitlines()
    numbered = "\n".join(f"{number:4}\t{line}" for number, line in enumerate(rows, 1))
    assert devices(numbered, "x") == wanted
    assert devices("<br>\n".join(map(html.escape, rows)), "x") == wanted
    assert devices(
        "<br/>".join(html.escape(row).replace("  ", "&nbsp; ") for row in rows), "x"
    ) == (wanted)


def test_echo_in_capitals() -> None:
    assert devices(LSUSB.replace("echo", "ECHO").replace("0x", "0X"), "x") == devices(LSUSB, "x")


DUMPS = {
    "plain": RAW,
    "joined": BYTES.hex(),
    "upper case": RAW.upper(),
    "colons": BYTES.hex(":"),
    "dashes": BYTES.hex("-"),
    "commas": BYTES.hex(","),
    "words": BYTES.hex(" ", 2),
    "lines": rows(lambda _, row, __: row.hex(" ")),
    "broken within a byte": f"{RAW[:40]}\n{RAW[40:]}",
    "labelled": f"Class descriptor: {RAW}",
    "a field of JSON": f'"raw": "{BYTES.hex()}"',
    "0x": ", ".join(f"0x{byte:02x}" for byte in BYTES),
    "0x, short": ", ".join(hex(byte) for byte in BYTES),
    "h": " ".join(f"{byte:02X}h" for byte in BYTES),
    "C": "uint8_t d[54] = {\n" + "\n".join(f"  0x{b:02X}, // 0x{b:02X}" for b in BYTES) + "\n};",
    "C, comments": "{" + "\n".join(f"0x{b:02X}, /* field 0x{b:02X} */" for b in BYTES) + "}",
    "a string of C": "".join(f"\\x{byte:02x}" for byte in BYTES),
    "xxd": rows(lambda place, row, text: f"{place:08x}: {row.hex(' ', -2):39}  {text}"),
    "xxd -g1": rows(lambda place, row, text: f"{place:08x}: {row.hex(' '):47}  {text}"),
    "hexdump -C": rows(
        lambda place, row, text: f"{place:08x}  {row[:8].hex(' ')}  {row[8:].hex(' ')}  |{text}|"
    )
    + "\n00000036",
    "hexdump": rows(lambda place, row, _: f"{place:07x} {words(row)}") + "\n0000036",
    "od -x": rows(lambda place, row, _: f"{place:07o} {words(row)}") + "\n0000066",
    "od -t x1": rows(lambda place, row, _: f"{place:07o} {row.hex(' ')}") + "\n0000066",
    "Wireshark": rows(lambda place, row, text: f"{place:04x}   {row.hex(' '):47}   {text}"),
}


@pytest.mark.parametrize("dump", DUMPS)
def test_a_class_descriptor_alone(dump: str) -> None:
    for form, change in FORMS.items():
        for before, wanted in (("", "0000:0000"), ("ID 04e6:5116 SCM\n", "04e6:5116")):
            (device,) = devices(change(before + DUMPS[dump]), form)
            (interface,) = device.interfaces
            assert (form, device.id, interface.descriptor.build()) == (form, wanted, BYTES)


@pytest.mark.parametrize(
    "line",
    [
        "Bus 001 Device 004: ID 04e6:5116 SCM Microsystems, Inc. SCR331",
        "04e6:5116",
        "USB\\VID_04E6&PID_5116&REV_0518",
        "usb 1-1: New USB device found, idVendor=04e6, idProduct=5116, bcdDevice= 5.18",
        "idVendor: 0x04E6\nidProduct: 0x5116",
    ],
)
def test_a_line_with_the_ids_of_the_device(line: str) -> None:
    assert devices(f"{line}\n{RAW}", "x")[0].id == "04e6:5116"


def device_bytes() -> tuple[bytes, DeviceFigures]:
    """All descriptors of a virtual reader, and the figures that a report of it gives."""
    usb = ccid.VirtualReader(None, slots=2, vendor_id=0x1234, product_id=0x5678).device
    content = usb.descriptor.build() + usb.raw_configuration
    (device,) = devices(content, "x")
    return content, device


@pytest.mark.parametrize("form", ["binary", "hexadecimal", "xxd"])
def test_all_descriptors_of_a_device(form: str) -> None:
    content, device = device_bytes()
    assert (device.id, device.bcdDevice) == ("1234:5678", 0x0100)
    (interface,) = device.interfaces
    assert interface.descriptor.bMaxSlotIndex == 1
    assert interface.reader.bulk_in is not None
    if form == "hexadecimal":
        assert devices(content.hex(" "), "x") == [device]
    elif form == "xxd":
        lines = (f"{i:08x}: {content[i : i + 16].hex(' ', -2)}" for i in range(0, len(content), 16))
        assert devices("\n".join(lines), "x") == [device]


def test_a_configuration_or_an_interface_alone() -> None:
    content, device = device_bytes()
    for start in (18, 27):
        (part,) = devices(content[start:].hex(), "x")
        assert part.interfaces == device.interfaces


def test_an_error_names_the_descriptor_that_is_cut_short() -> None:
    content, _ = device_bytes()
    with pytest.raises(MalformedDescriptor, match="x: the descriptor at byte 36 has bLength 54"):
        devices(content[:60].hex(), "x")


@pytest.mark.parametrize("text", ["dead beef", "00 11 22 33", "add\nface 12\n", "36 21", "-" * 40])
def test_other_hexadecimal_is_no_reader(text: str) -> None:
    with pytest.raises(MalformedDescriptor):
        devices(text, "x")


@given(st.binary(max_size=120) | st.text(max_size=60).map(str.encode))
@settings(max_examples=200)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedDescriptor):
        devices(content, "x")


def test_missing_ids_are_reported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCID_READERS", "")
    file = tmp_path / "x"
    file.write_text(RAW)
    status, out, err = run("import", str(file))
    assert status == 0
    assert "dwFeatures = 0x000100BA" in out
    assert "0000:0000 stands for them" in err


# The same reader twice ------------------------------------------------------------------------


def test_two_equal_readers_of_a_report_are_one(report: str) -> None:
    document = json.loads(report)
    one, two = document["readers"]
    for readers in ([one, two, one, two], [one, one, two, two]):
        document["readers"] = []
        for number, reader in enumerate(readers):
            place = 1 + readers[:number].count(reader)
            document["readers"].append({**reader, "path": f"usb:1-{place}:1.{reader is two:d}"})
        assert devices(json.dumps(document), "x") == devices(report, "x")


def test_readers_that_differ_stay_apart(report: str) -> None:
    document = json.loads(report)
    other = json.loads(report)["readers"]
    for reader in other:
        reader["device"]["bcdDevice"] += 1
        reader["path"] = reader["path"].replace("virtual:", "virtual:1")
    document["readers"] += other
    first, second = devices(json.dumps(document), "x")
    assert (first.id, first.interfaces) == (second.id, second.interfaces)
    assert second.bcdDevice == first.bcdDevice + 1


def test_the_same_reader_in_two_files_is_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCID_READERS", "")
    file = tmp_path / "x"
    file.write_text(PARSE)
    _, out, _ = run("import", str(file), str(DATA / "parse.txt"))
    assert out.count("[[figures") == 3  # the device and its two interfaces


@pytest.mark.parametrize(
    "text",
    [
        "iProduct: a" + " " * 200_000 + "b",
        "/*" * 100_000,
        "Interface Descriptor:\nbInterfaceClass 11\n" * 5_000,
        "idVendor 1234 " * 20_000,
        "> " * 100_000,
        "=" * 200_000,
        "36 21 00 01\n" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_time_grows_with_the_length_of_a_text_not_its_square(text: str) -> None:
    """These texts would take very long if the time grew with the square of the length."""
    try:
        found = devices(text, "x")
    except MalformedDescriptor:
        found = []
    assert len(found) <= 1


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(MalformedDescriptor, match="too long"):
        devices(bytes(5 << 20), "x")
