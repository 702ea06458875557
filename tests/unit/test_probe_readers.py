"""``ccid-probe readers``, ``report`` and ``import``."""

from __future__ import annotations

import dataclasses
import importlib.resources
import io
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import ccid
from ccid.codes import ExchangeLevel, Protocol
from ccid.errors import MalformedDescriptor
from ccid.known import descriptor_figures
from ccid.known.catalog import NO_EXTENDED, WITH_T1, Entry, catalog, search
from ccid.known.quirks import VOCABULARY, known_readers, lookup, reader_table
from ccid.known.quirks.value_kinds import shown
from ccid.probe import doctor_command
from ccid.probe import reader_choice as session
from ccid.probe.imported import devices
from ccid.transport import linux
from tests.unit.conftest import Run
from tests.unit.fake_usb import FakeBackend, use_backend

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """USB without any reader, and no file of readers of the user."""
    backend = FakeBackend()
    use_backend(monkeypatch, backend)
    monkeypatch.delenv(reader_table.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def checked(name: str, document: Any) -> None:
    """Validate ``document`` against its schema."""
    file = importlib.resources.files("ccid.probe") / "schemas" / f"{name}.json"
    schema = json.loads(file.read_text("utf-8"))
    checker = jsonschema.Draft202012Validator(schema)
    checker.check_schema(schema)
    checker.validate(document)


# The catalog ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def entries() -> dict[str, Entry]:
    return {entry.known.id: entry for entry in catalog()}


def test_every_reader_is_in_the_catalog(entries: dict[str, Entry]) -> None:
    assert {known.id for known in known_readers()} <= entries.keys()
    assert sum(bool(entry.devices) for entry in entries.values()) >= 577


def test_what_a_reader_can_do(entries: dict[str, Entry]) -> None:
    prox = entries["08e6:5503"]
    assert prox.levels == [ExchangeLevel.TPDU, ExchangeLevel.EXTENDED_APDU]
    assert prox.protocols == [Protocol.T0, Protocol.T1]
    assert prox.voltages == ["5 V", "3 V", "1.8 V"]
    assert (prox.slots, prox.extended, prox.pin_pad, prox.display) == (2, "yes", [], "")
    assert entries["08e6:3437"].extended == WITH_T1
    assert entries["0416:3815"].levels == [ExchangeLevel.CHARACTER]
    assert entries["0d46:3010"].extended == NO_EXTENDED  # by a quirk, against its descriptor
    assert entries["0d46:4081"].extended == ""
    assert entries["08e6:3478"].display == "2 × 16"


def test_quirks_count(entries: dict[str, Entry]) -> None:
    assert any(i.descriptor.bPINSupport for i in entries["0783:0006"].interfaces)
    assert entries["0783:0006"].pin_pad == []
    assert entries["076b:3a21"].extended == "yes"


def test_every_value_can_be_shown(entries: dict[str, Entry]) -> None:
    for entry in entries.values():
        for case in entry.known.cases:
            for d in VOCABULARY.values():
                if d.field in case.values:
                    assert shown(case.values[d.field], d.kind)


@pytest.mark.parametrize(
    ("words", "found", "missing"),
    [
        (["08e6:3437"], "08e6:3437", "08e6:3438"),
        (["GEMALTO", "twin"], "08e6:3437", "08e6:3438"),
        (["extended", "pinpad"], "0c4b:0504", "08e6:3478"),
        (["display"], "08e6:3478", "08e6:3437"),
        (["iccd"], "08e6:1227", "08e6:3437"),
        (["dwmaxifsd"], "09be:0002", "08e6:3437"),
        (["disabled"], "0c4b:0500", "0c4b:0504"),
        (["character"], "0416:3815", "08e6:3437"),
    ],
)
def test_search(entries: dict[str, Entry], words: list[str], found: str, missing: str) -> None:
    ids = {entry.known.id for entry in search(entries.values(), words)}
    assert found in ids
    assert missing not in ids


# readers --------------------------------------------------------------------------------------


def test_readers_in_full_when_they_are_few(run: Run) -> None:
    status, out, err = run("readers", "433-swap")
    assert (status, err) == (0, "")
    assert out.startswith("08e6:4433  supported    ")
    assert "quirk power-on-escape = 1F 01\n" in out
    assert "virtual: ccid-probe card --virtual 08e6:4433" in out


def test_readers_tells_conditions_and_reasons(run: Run) -> None:
    assert "quirk pin-sizes = 4, 8 (only bcdDevice 0100)" in run("readers", "08e6:3478")[1]
    assert "reason: a proprietary interface" in run("readers", "0c4b:0500")[1]
    assert "its descriptors are not known" in run("readers", "0d46:4081")[1]
    assert "display: 2 × 16 characters" in run("readers", "08e6:3478")[1]


def test_readers_in_a_line_when_they_are_many(run: Run) -> None:
    status, out, err = run("readers")
    assert status == 0
    count = sum(1 for _ in known_readers())
    assert len(out.splitlines()) == count
    assert f"{count} readers" in err


def test_readers_that_can_be_virtual(run: Run) -> None:
    _, out, _ = run("readers", "--virtual", "gemalto")
    assert "08e6:3437" in out
    assert "08e6:1227" not in out  # an ICCD device


def test_a_model_is_a_word_here(run: Run) -> None:
    assert run("readers", "--virtual", "08e6:3437")[1].startswith("08e6:3437  supported")


def test_no_reader_fits(run: Run) -> None:
    assert run("readers", "frobnicator") == (1, "", "ccid-probe: no reader in the table fits\n")
    status, out, _ = run("readers", "frobnicator", "--json")
    assert status == 1
    assert json.loads(out)["readers"] == []


def test_readers_as_json(run: Run) -> None:
    status, out, _ = run("readers", "--json")
    assert status == 0
    document = json.loads(out)
    checked("readers", document)
    twin = next(r for r in document["readers"] if r["id"] == "08e6:3437")
    assert (twin["levels"], twin["slots"], twin["virtual"]) == (["TPDU"], 1, True)
    drain = {"name": "drain-before-write-s", "value": "0.01", "condition": "bcdDevice 0200"}
    assert drain in twin["quirks"]


# report ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["1209:0001", "08e6:4433", "08e6:5503", "1b0e:1078"])
def test_a_report_is_as_documented(run: Run, model: str) -> None:
    status, out, _ = run("report", "--virtual", model)
    assert status == 0
    document = json.loads(out)
    checked("report", document)
    reader = document["readers"][0]
    assert bytes.fromhex(reader["raw"]["device"])[8:12] == bytes.fromhex(
        model[2:4] + model[:2] + model[7:9] + model[5:7]
    )
    assert len(bytes.fromhex(reader["raw"]["configuration"])) > 80


def test_what_a_report_tells(run: Run) -> None:
    (reader,) = json.loads(run("report", "--virtual", "08e6:4433")[1])["readers"]
    (slot,) = reader["slots"]
    assert slot["atr"].startswith("3B")
    assert (slot["status"], slot["protocol"], slot["error"]) == ("active", "T=0", None)
    assert slot["exchanges"][0]["command"] == "00A4000C023F00"
    assert slot["exchanges"][0]["response"] == "9000"
    assert {"name": "power-on-escape", "value": "1F 01"} in reader["quirks"]
    assert reader["table"]["status"] == "supported"
    assert reader["verdict"] == "works with limits"
    assert any("PC_to_RDR_IccPowerOn" in line["what"] for line in reader["transfers"])
    assert reader["strings"]["iSerialNumber"] is None


def test_a_report_of_a_reader_that_is_refused(run: Run) -> None:
    status, out, _ = run("report", "--virtual", "0c4b:0500")
    document = json.loads(out)
    checked("report", document)
    (reader,) = document["readers"]
    assert (status, reader["verdict"], reader["slots"]) == (0, "unsupported", [])
    assert reader["misplaced"]


def test_a_report_of_a_reader_that_cannot_be_opened(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ccid.errors.ReaderBusy("held by pcscd")

    monkeypatch.setattr(session, "open_reader", fail)
    status, out, _ = run("report", "--virtual")
    document = json.loads(out)
    checked("report", document)
    assert status == 1
    assert document["readers"][0]["error"] == "ReaderBusy: held by pcscd"


def test_a_report_without_a_card(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = ccid.VirtualReader(None)
    monkeypatch.setattr(session, "list_readers", lambda: [empty.info])
    document = json.loads(run("report")[1])
    checked("report", document)
    (slot,) = document["readers"][0]["slots"]
    assert (slot["status"], slot["atr"], slot["exchanges"]) == ("absent", None, [])


def test_a_report_into_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    status, out, err = run("report", "--virtual", "--output", str(file))
    assert (status, out) == (0, "")
    assert "read the file before you send it" in err
    checked("report", json.loads(file.read_text("utf-8")))


# import ---------------------------------------------------------------------------------------


def test_import_of_a_report(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    run("report", "--virtual", "08e6:5503", "--output", str(file))
    (device,) = devices(file.read_text("utf-8"), "x")
    (real,) = descriptor_figures.figures(0x08E6, 0x5503)
    assert (device.id, device.bcdDevice, device.product) == (real.id, real.bcdDevice, real.product)
    assert [i.descriptor for i in device.interfaces] == [i.descriptor for i in real.interfaces]
    assert [i.number for i in device.interfaces] == [1, 2]


def test_import_of_a_misplaced_descriptor(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    run("report", "--virtual", "1b0e:1078", "--output", str(file))
    (device,) = devices(file.read_text("utf-8"), "x")
    assert device.interfaces[0].reader.misplaced


def test_import_of_a_dump(run: Run) -> None:
    text = run("dump", "--json", "--virtual", "0403:c587")[1]
    (device,) = devices(text, "x")
    real = descriptor_figures.figures(0x0403, 0xC587)[0]
    assert device.interfaces[0].descriptor == real.interfaces[0].descriptor
    assert device.interfaces[0].data_rates == real.interfaces[0].data_rates != ()


def test_import_of_what_parse_printed() -> None:
    (device,) = devices((DATA / "parse.txt").read_text("utf-8"), "x")
    assert (device.id, device.bcdDevice) == ("1234:5678", 0x0531)
    assert (device.manufacturer, device.product) == ("Example", "Dual Reader")
    contact, other = device.interfaces
    assert (contact.number, contact.name, other.number, other.name) == (0, "Contact", 1, "")
    assert contact.data_rates == (9677, 412903)
    assert contact.clock_frequencies == (1800, 3600, 7200)
    d = contact.descriptor
    assert (d.bMaxSlotIndex, d.dwDefaultClock, d.dwMaximumClock) == (2, 3600, 7200)
    assert (d.dwProtocols, d.dwFeatures, d.bClassGetResponse) == (3, 0x000404BA, 0xFF)
    assert (d.wLcdLayout, d.bPINSupport, d.dwMaxCCIDMessageLength) == (0x0210, 3, 65544)
    assert len(other.reader.endpoints) == 2


def test_import_of_lsusb() -> None:
    (device,) = devices((DATA / "lsusb.txt").read_text("utf-8"), "x")
    assert (device.id, device.bcdDevice, device.product) == ("08e6:4433", 0x0102, "QEMU USB CCID")
    (interface,) = device.interfaces
    d = interface.descriptor
    assert (interface.number, interface.name) == (1, "CCID Interface")
    assert (d.dwFeatures, d.dwMaximumClock, d.dwMaxCCIDMessageLength) == (0x104FE, 65536, 65554)
    assert (d.bClassGetResponse, d.bClassEnvelope, d.wLcdLayout) == (0xFF, 0x0C, 0x0210)
    assert interface.reader.bulk_in is not None
    assert interface.reader.bulk_in.max_packet_size == 512
    assert not interface.reader.misplaced


def test_import_of_lsusb_with_a_misplaced_descriptor() -> None:
    text = (DATA / "lsusb.txt").read_text("utf-8")
    start = text.index("      ChipCard Interface")
    end = text.index("      Endpoint Descriptor", start)
    moved = text[:start] + text[end:].replace("Device Status", text[start:end] + "Device Status")
    (device,) = devices(moved, "x")
    assert device.interfaces[0].reader.misplaced


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no smart-card reader is described"),
        ("hello", "no smart-card reader is described"),
        ("{}", "no report of ccid-probe"),
        ("{", "JSONDecodeError"),
        (" idVendor: 0x1234\n dwFeatures: 0x2\n", "is missing"),
        (" idVendor: what\n", "invalid literal"),
        ("Device Descriptor:\n  idVendor 0x1234\n", "no smart-card reader is described"),
    ],
)
def test_import_of_something_else(text: str, words: str) -> None:
    with pytest.raises(MalformedDescriptor, match=words) as caught:
        devices(text, "some.txt")
    assert str(caught.value).startswith("some.txt: ")


def test_every_value_has_to_fit_its_field() -> None:
    text = (DATA / "parse.txt").read_text("utf-8")
    with pytest.raises(MalformedDescriptor, match="bMaxSlotIndex"):
        devices(text.replace("bMaxSlotIndex: 0x02", "bMaxSlotIndex: 0x102"), "x")


def test_import_prints_an_entry_that_can_be_read(run: Run, tmp_path: Path) -> None:
    status, out, err = run("import", str(DATA / "parse.txt"))
    assert status == 0
    assert "--save" in err
    assert not (tmp_path / "config").exists()
    file = tmp_path / "config/ccid/readers.toml"
    file.parent.mkdir(parents=True)
    file.write_text(out)
    assert lookup(0x1234, 0x5678).name == "Example Dual Reader"
    assert descriptor_figures.figures(0x1234, 0x5678) == devices(
        (DATA / "parse.txt").read_text(), "x"
    )


def test_import_and_the_virtual_reader(run: Run) -> None:
    status, _, err = run("import", "--save", str(DATA / "parse.txt"))
    assert status == 0
    assert "ccid-probe card --virtual 1234:5678" in err
    status, out, _ = run("card", "--virtual", "1234:5678")
    assert status == 0
    assert "Reader: Example Dual Reader [0]" in out
    assert "1234:5678  should-work" in run("readers", "dual reader")[1]


def test_import_twice_saves_once(run: Run, tmp_path: Path) -> None:
    run("import", "--save", str(DATA / "parse.txt"))
    file = tmp_path / "config/ccid/readers.toml"
    before = file.read_text()
    _, _, err = run("import", "--save", str(DATA / "parse.txt"))
    assert "all of these readers are known already" in err
    assert file.read_text() == before


def test_import_adds_to_what_is_there(run: Run, tmp_path: Path) -> None:
    run("import", "--save", str(DATA / "parse.txt"))
    run("import", "--save", str(DATA / "lsusb.txt"))
    assert descriptor_figures.figures(0x1234, 0x5678)
    assert descriptor_figures.figures(0x08E6, 0x4433)[0].product == "QEMU USB CCID"
    assert lookup(0x08E6, 0x4433).status == "supported"


def test_import_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO((DATA / "lsusb.txt").read_text()))
    status, out, _ = run("import", "-")
    assert status == 0
    assert out.startswith("# 08e6:4433 is in the table: ")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"nothing"])
def test_import_of_a_file_without_a_reader(run: Run, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    status, out, err = run("import", str(file))
    assert (status, out) == (1, "")
    assert f"ccid-probe: {file}: " in err


def test_import_of_a_file_that_is_not_there(run: Run) -> None:
    status, _, err = run("import", "/nowhere/report.json")
    assert status == 1
    assert "/nowhere/report.json" in err


def test_a_wrong_user_file_is_named(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "config/ccid/readers.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[reader."1234:5678"]\nfrob = 1\n')
    status, _, err = run("list", "--virtual")
    assert status == 1
    assert f'{file}:2: reader."1234:5678".frob: not known' in err


# doctor ---------------------------------------------------------------------------------------


def device(root: Path, name: str, **attributes: str) -> None:
    """A fake sysfs with one device."""
    for attribute, text in attributes.items():
        file = root / "sys/bus/usb/devices" / name / attribute.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is sysfs that is asked")
def test_a_device_that_has_to_be_switched(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device(tmp_path, "1-1", idVendor="0d46", idProduct="4081")
    device(tmp_path, "1-2", idVendor="0d46", idProduct="3001")
    there = linux.identities(tmp_path)
    assert there == [("1-1", 0x0D46, 0x4081), ("1-2", 0x0D46, 0x3001)]
    monkeypatch.setattr(linux, "identities", lambda: there)
    status, out, _ = run("doctor")
    assert status == 1
    assert "KOBIL Systems mIDentity at usb:1-1 is no reader yet" in out
    assert out.count("has to be switched") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is sysfs that is asked")
@pytest.mark.parametrize(
    ("ids", "control", "trouble"),
    [((0x058F, 0x9520), "auto", True), ((0x058F, 0x9520), "on", False), ((1, 2), "auto", False)],
)
def test_a_reader_that_must_not_be_suspended(
    run: Run, monkeypatch: pytest.MonkeyPatch, ids: tuple[int, int], control: str, trouble: bool
) -> None:
    virtual = ccid.VirtualReader(vendor_id=ids[0], product_id=ids[1], bcdDevice=0x0102)
    info = dataclasses.replace(virtual.info, bus=1, path="usb:1-2:1.0")
    monkeypatch.setattr(doctor_command, "_look", lambda *_: [info])
    told = {("1-2", "power/control"): control}
    monkeypatch.setattr(linux, "attribute", lambda *key: told.get(key))
    status, out, _ = run("doctor")
    assert ("does not survive" in out) is trouble
    assert ("echo on > /sys/bus/usb/devices/1-2/power/control" in out) is trouble
    assert status == int(trouble)
