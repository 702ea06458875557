"""``ccid-probe import`` on odd reports, and how it adds to the user's file: the file can always be
read again, and is never half written."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccid.errors import CcidError, MalformedDescriptor
from ccid.known import descriptor_figures
from ccid.known.quirks import lookup, reader_table
from ccid.probe import import_command
from ccid.probe.imported import devices
from tests.unit.printing import EVIL, TAMED, printed

DATA = Path(__file__).parent / "data"
PARSE = (DATA / "parse.txt").read_text("utf-8")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the user's file."""
    monkeypatch.delenv(reader_table.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "ccid/readers.toml"


@pytest.fixture(scope="module")
def report() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(reader_table.VARIABLE, "")
        return printed("report", "--virtual")[1]


def changed(report: str, *path: Any, to: Any) -> str:
    """A report with one value changed."""
    document = json.loads(report)
    part: Any = document["readers"][0]
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = to
    return json.dumps(document)


def save(tmp_path: Path, text: str | bytes) -> tuple[int, str, str]:
    file = tmp_path / "sent"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return printed("import", "--save", str(file))


# What a report says is data -------------------------------------------------------------------

INJECTED = (
    '0x1\n\n[reader."08e6:3437"]\nquirks.power-on-escape = "DE AD BE EF"\n'
    'quirks.pseudo-apdus = { "00 20 00 01" = "injected" }'
)
NAMES = [
    "0x10 Card Reader", "0x1", INJECTED, EVIL, 'a"b', "a\\", '"""', "'''", "a\x7fb", "\ud800",
    "# not a comment", "[[figures]]", "true", "1.5", "🂡", "", " ",
]  # fmt: skip


@pytest.mark.parametrize("string", ["iProduct", "iManufacturer", "iInterface"])
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_stays_a_name(
    tmp_path: Path, home: Path, report: str, string: str, name: str
) -> None:
    before = lookup(0x08E6, 0x3437)
    status, _, err = save(tmp_path, changed(report, "strings", string, to=name))
    assert (status, "Traceback" in err) == (0, False)
    content = tomllib.loads(home.read_text("utf-8"))
    assert set(content["reader"]) == set(content["figures"]) == {"1209:0001"}
    assert set(content["reader"]["1209:0001"]) == {"name", "status"}
    assert lookup(0x08E6, 0x3437) == before
    assert printed("card", "--virtual", "1209:0001")[0] == 0
    (device,) = descriptor_figures.figures(0x1209, 1)
    saved = {
        "iProduct": device.product,
        "iManufacturer": device.manufacturer,
        "iInterface": device.interfaces[0].name,
    }[string]
    assert saved == {EVIL: TAMED}.get(name, saved)
    assert saved.isprintable()


def test_a_harmless_name_is_kept(tmp_path: Path, report: str) -> None:
    save(tmp_path, changed(report, "strings", "iProduct", to="0x10 Card Reader"))
    assert descriptor_figures.figures(0x1209, 1)[0].product == "0x10 Card Reader"


# Values that are none -------------------------------------------------------------------------

NUMBERS = [
    ("device", "idVendor"), ("device", "idProduct"), ("device", "bcdDevice"),
    ("interface", "bInterfaceNumber"), ("interface", "bNumEndpoints"),
    ("interface", "bInterfaceClass"), ("interface", "bInterfaceProtocol"),
    ("smart_card", "bDescriptorType"), ("smart_card", "bcdCCID"), ("smart_card", "bMaxSlotIndex"),
    ("smart_card", "dwFeatures"), ("smart_card", "dwDefaultClock"), ("smart_card", "wLcdLayout"),
    ("endpoints", 0, "bEndpointAddress"), ("endpoints", 0, "wMaxPacketSize"),
]  # fmt: skip
NO_NUMBERS: list[Any] = [
    None, True, "abc", "", [1], {}, -1, 1.0, float("inf"), float("nan"), 2**32, 10**30, "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("path", NUMBERS, ids=lambda path: str(path[-1]))
def test_a_wrong_value(report: str, path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(MalformedDescriptor) as caught:
        devices(changed(report, *path, to=value), "sent")
    assert str(caught.value).startswith(f"sent: readers[0]: {path[-1]}: ")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("path", NUMBERS, ids=lambda path: str(path[-1]))
def test_a_value_that_is_missing(report: str, path: tuple[Any, ...]) -> None:
    document = json.loads(report)
    part: Any = document["readers"][0]
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    with pytest.raises(MalformedDescriptor, match=f"{path[-1]} is missing"):
        devices(json.dumps(document), "sent")


@pytest.mark.parametrize(
    ("path", "highest"),
    [
        (("device", "idVendor"), 0xFFFF),
        (("device", "bcdDevice"), 0xFFFF),
        (("interface", "bInterfaceNumber"), 0xFF),
        (("smart_card", "bMaxSlotIndex"), 0xFF),
        (("smart_card", "wLcdLayout"), 0xFFFF),
        (("smart_card", "dwMaxIFSD"), 0xFFFF_FFFF),
        (("endpoints", 0, "wMaxPacketSize"), 0xFFFF),
    ],
)
def test_the_edges_of_a_field(report: str, path: tuple[Any, ...], highest: int) -> None:
    for value in (0, highest):
        text = changed(report, *path, to=value)
        (device,) = devices(text, "sent")
        entry = import_command.entry_of([device]).encode()
        assert descriptor_figures.of_user("x", entry) == [device]
    with pytest.raises(MalformedDescriptor, match="does not fit"):
        devices(changed(report, *path, to=highest + 1), "sent")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("data_rates",), ["x"], "data-rates"),
        (("data_rates",), "9600", "data-rates"),
        (("data_rates",), [9600] * 1000, "at most 256"),
        (("clock_frequencies",), [2**32], "clock-frequencies"),
        (("clock_frequencies",), [[]], "clock-frequencies"),
        (("misplaced",), 1, "misplaced"),
        (("misplaced",), None, "misplaced"),
        (("strings",), None, "strings"),
        (("strings", "iProduct"), ["x"], "iProduct"),
        (("strings", "iProduct"), 7, "iProduct"),
        (("strings", "iProduct"), "x" * 127, "at most 126"),
        (("strings", "iProduct"), "🂡" * 64, "at most 126"),
        (("device",), [], "device"),
        (("interface",), "x", "interface"),
        (("smart_card",), None, "smart_card"),
        (("endpoints",), {}, "endpoints"),
        (("endpoints",), [1], "table of its fields is missing"),
        (("endpoints",), [{"bEndpointAddress": 1}], "bmAttributes is missing"),
        (("interface", "bNumEndpoints"), 1, "3 endpoints are described"),
    ],
)
def test_a_wrong_part(report: str, path: tuple[Any, ...], value: Any, words: str) -> None:
    with pytest.raises(MalformedDescriptor, match=words):
        devices(changed(report, *path, to=value), "sent")


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": "ccid-probe/report/1"}',
        '{"schema": "ccid-probe/report/1", "readers": {}}',
        '{"schema": "ccid-probe/report/1", "readers": [1, null]}',
        '{"schema": "ccid-probe/report/1", "readers": []}',
        '{"schema": ["ccid-probe/report/1"], "readers": []}',
        '{"schema": "ccid-probe/report/1", "readers": ' + "[" * 100_000,
        '{"schema": "ccid-probe/report/1", "readers": ' + '{"a":' * 100_000,
        '{"schema": "ccid-probe/report/1", "readers": [' + "9" * 5_000 + "]}",
        '{"schema": "ccid-probe/report/1", "readers": [1e999]}',
        '{"schema": ' + "[" * 100_000,
    ],
    ids=lambda text: text[:60],
)
def test_a_document_that_is_no_report(tmp_path: Path, home: Path, text: str) -> None:
    with pytest.raises(MalformedDescriptor, match="sent: "):
        devices(text, "sent")
    assert save(tmp_path, text)[0] == 1
    assert not home.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bMaxSlotIndex:", "bMaxSlotIndex has no value"),
        ("bcdDevice:", "bcdDevice has no value"),
        ("bcdDevice: 1", "bcdDevice: invalid literal"),
        ("bcdDevice: 1.2.3", "bcdDevice: invalid literal"),
        ("bcdDevice: 100.00", "bcdDevice: invalid literal"),
        ("dwDefaultClock: 1e999 MHz", "dwDefaultClock: invalid literal"),
        ("dwDefaultClock: nan MHz", "dwDefaultClock: invalid literal"),
        ("dwDefaultClock: 99999999 MHz", "dwDefaultClock: 99999999000 does not fit"),
        ("dwProtocols: 0x0000 zwei", None),
        ("dwMaxIFSD: -1", "dwMaxIFSD: invalid literal"),
        ("dwMaxIFSD: ²", "dwMaxIFSD: invalid literal"),
        ("dwMaxIFSD: " + "9" * 5_000, "dwMaxIFSD: invalid literal"),
    ],
)
def test_a_line_of_parse(line: str, words: str | None) -> None:
    name = line.split(":")[0]
    text = "\n".join(line if name in old else old for old in PARSE.splitlines())
    if words is None:
        assert devices(text, "sent")
        return
    with pytest.raises(MalformedDescriptor, match=words):
        devices(text, "sent")


JUNK: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.builds(list)
    | st.builds(dict)
)
PATHS = st.sampled_from(
    [*NUMBERS, ("strings", "iProduct"), ("data_rates",), ("endpoints", 0), ("endpoints",)]
)


@given(st.dictionaries(PATHS, JUNK, max_size=3))
@settings(max_examples=150)
def test_every_accepted_report_can_be_read_again(
    report: str, values: dict[tuple[Any, ...], Any]
) -> None:
    document = json.loads(report)
    for path, value in values.items():
        part: Any = document["readers"][0]
        try:
            for name in path[:-1]:
                part = part[name]
            part[path[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue  # an enclosing value was changed already
    try:
        found = devices(json.dumps(document), "sent")
    except MalformedDescriptor:
        return
    assert descriptor_figures.of_user("x", import_command.entry_of(found).encode()) == found


# The user's file ------------------------------------------------------------------------------

KEPT = '# mine\r\n[reader."08e6:3437"]\r\nquirks.no-pps = true\r\n'


def test_existing_content_stays(tmp_path: Path, home: Path) -> None:
    home.parent.mkdir()
    home.write_bytes(b"\xef\xbb\xbf" + KEPT.encode())
    assert save(tmp_path, PARSE)[0] == 0
    content = home.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf" + KEPT.encode() + b"\r\n[reader.")
    assert content.count(b"\n") == content.count(b"\r\n")
    assert lookup(0x08E6, 0x3437).no_pps
    assert descriptor_figures.figures(0x1234, 0x5678)


def test_an_entry_without_a_name_is_not_made_twice(tmp_path: Path, home: Path) -> None:
    home.parent.mkdir()
    home.write_text('[reader."1234:5678"]\nquirks.no-pps = true')
    status, out, _ = save(tmp_path, PARSE)
    assert status == 0
    assert "# 1234:5678 has an entry in your file" in out
    assert lookup(0x1234, 0x5678).no_pps
    assert descriptor_figures.figures(0x1234, 0x5678)


@pytest.mark.parametrize(
    "content",
    [
        b'reader = { "1234:5679" = { name = "x" } }\n',
        b"figures = {}\n",
        b'figures."1234:5678" = []\n',
        b'[reader."1234:5679"]\nname = "x"\n[[figures."1234:5679"]]\nfrob = 1\n',
    ],
)
def test_a_file_that_cannot_be_added_to_stays(tmp_path: Path, home: Path, content: bytes) -> None:
    home.parent.mkdir()
    home.write_bytes(content)
    status, _, err = save(tmp_path, PARSE)
    assert (status, home.read_bytes()) == (1, content)
    assert f"nothing was added, for the file would be wrong: {home}" in err
    assert os.listdir(home.parent) == [home.name]


@pytest.mark.parametrize("content", [b"\xff", b"x = [", b"x = 1\n", b"a = " + b"[" * 50_000])
def test_a_wrong_file_stays(tmp_path: Path, home: Path, content: bytes) -> None:
    home.parent.mkdir()
    home.write_bytes(content)
    status, _, err = save(tmp_path, PARSE)
    assert (status, home.read_bytes()) == (1, content)
    assert f"ccid-probe: {home}:" in err


def test_the_permissions_of_the_file_stay(tmp_path: Path, home: Path) -> None:
    home.parent.mkdir()
    home.write_text("")
    home.chmod(0o640)
    assert save(tmp_path, PARSE)[0] == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o640


def test_a_new_file_has_the_usual_permissions(tmp_path: Path, home: Path) -> None:
    before = os.umask(0o027)
    try:
        assert save(tmp_path, PARSE)[0] == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.stat().st_mode) == 0o640


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_stays_one(tmp_path: Path, home: Path, there: bool) -> None:
    real = tmp_path / "dotfiles/readers.toml"
    real.parent.mkdir()
    home.parent.mkdir()
    home.symlink_to(real)
    if there:
        real.write_text("# mine\n")
    assert save(tmp_path, PARSE)[0] == 0
    assert home.is_symlink()
    assert real.read_text("utf-8").startswith("# mine\n" if there else "[reader")
    assert descriptor_figures.figures(0x1234, 0x5678)


def test_a_link_to_itself_is_an_error(tmp_path: Path, home: Path) -> None:
    home.parent.mkdir()
    home.symlink_to(home)
    status, _, err = save(tmp_path, PARSE)
    assert (status, "Traceback" in err) == (1, False)


def test_a_folder_in_its_place_is_an_error(tmp_path: Path, home: Path) -> None:
    home.mkdir(parents=True)
    status, _, err = save(tmp_path, PARSE)
    assert status == 1
    assert str(home) in err


def test_the_file_is_complete_whenever_writing_is_interrupted(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.parent.mkdir()
    home.write_text("# mine\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            status, _, err = save(tmp_path, PARSE)
        assert (status, home.read_text()) == (1, "# mine\n")
        assert "No space left" in err
        assert os.listdir(home.parent) == [home.name]


def test_a_change_by_another_program_is_not_lost(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.parent.mkdir()
    home.write_text("# mine\n")
    check = descriptor_figures.of_user

    def slowly(file: str, content: bytes) -> list[descriptor_figures.DeviceFigures]:
        home.write_text("# theirs\n")
        return check(file, content)

    monkeypatch.setattr(descriptor_figures, "of_user", slowly)
    status, _, err = save(tmp_path, PARSE)
    assert (status, home.read_text()) == (1, "# theirs\n")
    assert "another program has changed the file" in err


def test_a_file_that_may_not_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home.parent.mkdir()
    home.write_text("# mine\n")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    status, _, err = save(tmp_path, PARSE)
    assert (status, home.read_text()) == (1, "# mine\n")
    assert f"{home} may not be written" in err


def test_entries_that_would_be_read_differently_are_not_saved(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = devices(PARSE, "x")
    monkeypatch.setattr(import_command, "entry_of", lambda _: "")
    with pytest.raises(CcidError, match="its entries would be read differently"):
        import_command.save(found)
    assert not home.exists()
