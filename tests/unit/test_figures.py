"""Descriptors of real readers, and the virtual readers made from them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ccid.codec.descriptors import EndpointDescriptor
from ccid.errors import ReaderTableError
from ccid.known import descriptor_figures
from ccid.known.quirks import known_readers, reader_table
from tests.unit.each import each

FOLDER = Path(__file__).parents[2] / "readers" / "descriptors"
FILES = sorted(FOLDER.iterdir())


@pytest.fixture(autouse=True)
def no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table of readers without the user's file."""
    monkeypatch.delenv(reader_table.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@each(file=FILES)
def test_every_file_is_as_it_is_written(file: Path) -> None:
    descriptor_figures.check(file.read_text("utf-8"), file.name)


def test_a_file_written_otherwise_is_refused() -> None:
    text = FILES[0].read_text("utf-8")
    with pytest.raises(ReaderTableError, match="not as tools/reader-figures writes it"):
        descriptor_figures.check(text.replace(" ", "  ", 1), FILES[0].name)


def test_files_are_named_as_the_tables() -> None:
    assert {f.stem for f in FILES} <= {f.stem for f in FOLDER.parent.glob("*.toml")}


def test_all_of_them() -> None:
    devices = list(descriptor_figures.all_figures())
    ids = {device.id for device in devices}
    assert len(devices) >= 597
    assert len(ids) >= 577
    assert ids <= {known.id for known in known_readers()}


def test_one_reader() -> None:
    (device,) = descriptor_figures.figures(0x08E6, 0x5503)
    assert [interface.number for interface in device.interfaces] == [1, 2]
    assert device.product
    assert all(interface.descriptor.bLength == 54 for interface in device.interfaces)


def test_the_newest_firmware_comes_first() -> None:
    for vendor_id, product_id in {
        (d.vendor_id, d.product_id) for d in descriptor_figures.all_figures()
    }:
        releases = [d.bcdDevice for d in descriptor_figures.figures(vendor_id, product_id)]
        assert releases == sorted(releases, reverse=True)


@pytest.mark.parametrize("ids", [(0x0B97, 0x7762), (0x0C4B, 0x0500), (0x1B0E, 0x1078)])
def test_misplaced_class_descriptors(ids: tuple[int, int]) -> None:
    for device in descriptor_figures.figures(*ids):
        assert all(interface.reader.misplaced for interface in device.interfaces)


@pytest.mark.parametrize("ids", [(0xFFFF, 1), (0x08E6, 0xFFFF)])
def test_a_reader_that_nothing_is_known_of(ids: tuple[int, int]) -> None:
    assert descriptor_figures.figures(*ids) == []


USER = """\
[[figures."1234:5678"]]
bcdDevice = 0x0102
iProduct = "Mine"

[[figures."1234:5678".interfaces]]
bNumEndpoints = 2
dwFeatures = 0x000204BA
dwProtocols = 3
dwMaxCCIDMessageLength = 271
data-rates = [9600, 19200]
endpoints = [{ bEndpointAddress = 1, bmAttributes = 2, wMaxPacketSize = 512, bInterval = 0 }]
"""


@pytest.fixture
def user(tmp_path: Path) -> Any:
    """Writes the user's own file."""

    def call(text: str) -> Path:
        file = tmp_path / "config/ccid/readers.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return call


def test_figures_of_the_user(user: Any) -> None:
    user(USER)
    (device,) = descriptor_figures.figures(0x1234, 0x5678)
    (interface,) = device.interfaces
    assert (device.bcdDevice, device.product) == (0x0102, "Mine")
    assert interface.descriptor.dwFeatures == 0x000204BA
    assert interface.data_rates == (9600, 19200)
    assert interface.reader.endpoints == (
        EndpointDescriptor(bEndpointAddress=1, bmAttributes=2, wMaxPacketSize=512),
    )
    assert device in list(descriptor_figures.all_figures())


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("dwFeatures", "dwFeature", 1, "dwFeature is not known"),
        ("bcdDevice", "bcd", 1, "bcd is not known"),
        ("dwProtocols = 3", 'dwProtocols = "x"', 1, "invalid literal"),
        (".interfaces]]", ".interface]]", 1, "interface is not known"),
    ],
)
def test_wrong_figures_of_the_user(user: Any, old: str, new: str, line: int, words: str) -> None:
    file = user(USER.replace(old, new))
    with pytest.raises(ReaderTableError) as caught:
        descriptor_figures.figures(0x1234, 0x5678)
    assert (caught.value.file, caught.value.line) == (str(file), line)
    assert caught.value.key == 'figures."1234:5678".0'
    assert words in str(caught.value)


def test_ids_of_the_user_are_small(user: Any) -> None:
    user(USER.replace("1234:5678", "1234:567F"))
    with pytest.raises(ReaderTableError, match="small letters"):
        list(descriptor_figures.all_figures())


@pytest.mark.parametrize("ids", [(0x08E6, 0x5503), (0x0B97, 0x7762), (0x076B, 0x5422)])
def test_there_and_back_by_toml(user: Any, ids: tuple[int, int]) -> None:
    before = descriptor_figures.figures(*ids)
    user("\n".join(descriptor_figures.as_toml(device) for device in before))
    assert descriptor_figures.figures(*ids) == before + before


def test_there_and_back_by_json() -> None:
    (device,) = descriptor_figures.figures(0x08E6, 0x5503)
    content = json.loads(descriptor_figures.as_json({"5503": [device]}))
    assert descriptor_figures.parse(0x08E6, 0x5503, content["5503"][0]) == device


# The tool that adds figures -------------------------------------------------------------------

REPORTS = Path(__file__).parent / "data"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs tools/reader-figures, which writes to ``tmp_path``."""
    path = FOLDER.parents[1] / "tools" / "reader-figures"
    loader = importlib.machinery.SourceFileLoader("reader_figures", str(path))
    spec = importlib.util.spec_from_loader("reader_figures", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setenv("CCID_READERS", "")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    return module


def test_new_figures_go_with_the_old(tool: Any, tmp_path: Path) -> None:
    assert tool.main([str(REPORTS / "lsusb.txt")]) == 0
    (file,) = tmp_path.glob("*.json")
    assert file.name == "08e6-gemalto.json"
    descriptor_figures.check(file.read_text("utf-8"), file.name)
    before = json.loads((FOLDER / file.name).read_text("utf-8"))
    after = json.loads(file.read_text("utf-8"))
    assert len(after["4433"]) == len(before["4433"]) + 1
    assert {**after, "4433": before["4433"]} == before


def test_figures_of_a_reader_the_table_does_not_have(
    tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([str(REPORTS / "parse.txt")]) == 1
    assert "1234:5678 is not in readers/*.toml yet" in capsys.readouterr().err
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(("words", "status"), [([], 2), (["--frob"], 2), (["/nowhere"], 1)])
def test_wrong_command_lines_of_the_tool(tool: Any, words: list[str], status: int) -> None:
    assert tool.main(words) == status
