"""Counts of interface bytes, and their bars."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.errors import CcidError
from ccid.iso7816.atr import Atr
from ccid.probe import chart
from ccid.probe.atr_list import Entry, entries, parse
from ccid.probe.atr_stats import CODES, Stats, Table, choose, count

ATRS = """\
3B 80 81 31 FE 45 8B
3B 80 81 31 20 45 55
3B 80 81 21 75 55
3B 80 80 2F A0 0F
3B 80 80 01 01
3B 00
3B .. 00
3B 80 81 21 .5 ..
3B 10
"""


def counted(byte: str, atrs: str = ATRS) -> Stats:
    return count(entries(atrs.splitlines()), byte)


def rows(table: Table) -> dict[str, int]:
    return {row.label: row.count for row in table.rows}


def table(stats: Stats, name: str) -> Table:
    return next(t for t in stats.tables if t.name == name)


def test_tb3_is_the_first_after_t1_or_t15() -> None:
    stats = counted("TB3")
    assert stats.title == "TB3 (first after T=15 or T=1)"
    assert (stats.atrs, stats.present, stats.absent) == (9, 4, 2)
    assert (stats.unknown, stats.malformed) == (2, 1)
    assert [t.name for t in stats.tables] == ["TB3", "BWI (T=1)", "CWI (T=1)", "SPU (T=15)"]
    assert rows(stats.tables[0]) == {"0x45": 2, "0x75": 1, "0xA0": 1}
    assert rows(table(stats, "BWI (T=1)")) == {"4": 2, "7": 1}
    assert rows(table(stats, "CWI (T=1)")) == {"5": 3}
    assert rows(table(stats, "SPU (T=15)")) == {"A0": 1}
    assert [round(row.percent, 2) for row in table(stats, "BWI (T=1)").rows] == [66.67, 33.33]
    assert table(stats, "BWI (T=1)").total == 3


@pytest.mark.parametrize(
    ("byte", "atr", "expected"),
    [
        ("TA1", "3B 10 18", {"TA1": "0x18", "Fi": "1: 372", "Di": "8: 12"}),
        ("TA1", "3B 10 7F", {"Fi": "7: reserved", "Di": "F: reserved"}),
        ("TB1", "3B 20 25", {"II": "1", "PI1": "5"}),
        ("TC1", "3B 40 FF", {"TC1": "0xFF", "N": "255"}),
        ("TD1", "3B 80 51 00 00 00", {"TD1": "0x51", "T": "T=1", "Y": "AC"}),
        ("TD1", "3B 80 01 00", {"Y": "-"}),
        ("TA2", "3B 80 10 91", {"T": "T=1", "change": "unable", "parameters": "implicit"}),
        ("TA2", "3B 80 10 00", {"T": "T=0", "change": "able", "parameters": "explicit"}),
        ("TB2", "3B 80 20 64", {"PI2": "100"}),
        ("TC2", "3B 80 40 0A", {"WI": "10"}),
        ("TA3", "3B 80 81 11 FE", {"TA3": "0xFE", "IFSC (T=1)": "254"}),
        ("TA3", "3B 80 80 1F C7", {"X (T=15)": "3: no preference", "Y (T=15)": "07: ABC"}),
        ("TA3", "3B 80 80 1F 00", {"X (T=15)": "0: not supported", "Y (T=15)": "00: reserved"}),
        ("TC3", "3B 80 81 41 01", {"error detection (T=1)": "CRC"}),
        ("TC3", "3B 80 81 41 00", {"error detection (T=1)": "LRC"}),
        ("TA4", "3B 80 80 81 1F 05", {"TA4": "0x05"}),
    ],
)
def test_what_bytes_code(byte: str, atr: str, expected: dict[str, str]) -> None:
    stats = counted(byte, atr)
    assert stats.present == 1
    for name, label in expected.items():
        assert rows(table(stats, name)) == {label: 1}


def test_which_byte_a_name_means() -> None:
    atr = Atr.parse(bytes.fromhex("3B 80 90 AA 80 91 BB 1F CC 00"))
    assert choose(atr, "TA3") == (0xBB, 1)
    assert choose(atr, "TA4") == (0xBB, 1)
    assert choose(atr, "TA5") == (0xCC, 15)
    assert choose(atr, "TD3") == (0x91, 0)
    assert choose(atr, "TB3") is None


@pytest.mark.parametrize("byte", ["TE1", "TA0", "TA", "T0", "", "TA100"])
def test_no_such_byte(byte: str) -> None:
    with pytest.raises(ValueError, match="no interface byte"):
        counted(byte)


def test_a_byte_that_none_has() -> None:
    stats = counted("TC4")
    assert (stats.present, stats.tables[0].rows) == (0, ())
    assert "</svg>" in chart.svg(chart.picture(stats))


@given(st.lists(st.binary(min_size=1, max_size=20)), st.sampled_from(sorted(CODES)))
def test_the_counts_add_up(raws: list[bytes], name: str) -> None:
    atrs = [b"\x3b" + raw for raw in raws]
    stats = count([Entry("", 0, raw, raw) for raw in atrs], name if name != "TD" else "TD1")
    assert stats.atrs == len(atrs)
    assert stats.present + stats.absent + stats.malformed == stats.atrs
    assert stats.tables[0].total == stats.present
    for one in stats.tables:
        assert sum(row.count for row in one.rows) == one.total
        if one.rows:
            assert sum(row.percent for row in one.rows) == pytest.approx(100)


# Bars -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "columns", "blocks", "drawn"),
    [
        (1.0, 4, True, "████"),
        (0.5, 4, True, "██"),
        (0.5, 1, True, "▌"),
        (0.0001, 10, True, "▏"),
        (0.0, 10, True, ""),
        (1.0, 0, True, ""),
        (1.0, -3, False, ""),
        (0.5, 4, False, "##"),
        (0.0001, 4, False, "#"),
    ],
)
def test_bars(part: float, columns: int, blocks: bool, drawn: str) -> None:
    assert chart.bar(part, columns, blocks=blocks) == drawn


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("blocks", [True, False])
def test_a_table_fits_the_terminal(columns: int, blocks: bool) -> None:
    shown = list(chart.lines(counted("TB3").tables[0], columns, blocks=blocks))
    assert shown[0].split() == ["TB3", "#", "%"]
    assert shown[1].split()[:3] == ["0x45", "2", "50.00"]
    assert columns - 2 <= max(len(line) for line in shown) <= columns
    assert "".join(shown).isascii() is not blocks


def test_a_terminal_too_narrow_for_bars_has_the_numbers() -> None:
    shown = list(chart.lines(counted("TB3").tables[0], 10, blocks=True))
    assert shown[1].split() == ["0x45", "2", "50.00"]


@pytest.mark.parametrize(
    ("encoding", "can"),
    [("utf-8", True), ("ascii", False), ("latin-1", False), (None, False), ("frob", False)],
)
def test_which_terminals_can_show_blocks(encoding: str | None, can: bool) -> None:
    assert chart.can_print_blocks(encoding) is can


SVG = "{http://www.w3.org/2000/svg}"


def test_svg() -> None:
    stats = counted("TB3")
    root = ET.fromstring(chart.svg(chart.picture(stats)))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts[:2] == ["TB3 (first after T=15 or T=1)", "4 of 9 ATRs have it"]
    assert "2  (50.00 %)" in texts
    bars = list(root.iter(f"{SVG}rect"))[1:]
    assert len(bars) == sum(len(one.rows) for one in stats.tables)
    assert float(bars[0].attrib["width"]) == pytest.approx(2 * float(bars[1].attrib["width"]), 0.01)
    far = max(float(b.attrib["x"]) + float(b.attrib["width"]) for b in bars)
    assert far < float(root.attrib["width"])
    low = max(float(b.attrib["y"]) + float(b.attrib["height"]) for b in bars)
    assert low < float(root.attrib["height"])


def test_svg_escapes() -> None:
    drawn = chart.Picture(10, 10, (chart.Text(0, 0, "<&>", 10, "#000"),))
    assert ET.fromstring(chart.svg(drawn)).findtext(f".//{SVG}text") == "<&>"


def test_png(tmp_path: Path) -> None:
    from PIL import Image

    from ccid.probe import chart_png

    file = tmp_path / "t.png"
    drawn = chart.picture(counted("TB3"))
    chart_png.write(drawn, str(file))
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.size == (2 * drawn.width, 2 * drawn.height)
        box = next(s for s in drawn.shapes if isinstance(s, chart.Box))
        inside = (int(2 * box.x) + 2, int(2 * box.y) + 2)
        assert image.getpixel(inside) == (0x2F, 0x6F, 0x9F)
        assert image.getpixel((1, 1)) == (255, 255, 255)
        assert len(image.getcolors(1 << 16) or []) > 20, "no text, which has soft edges"


def test_png_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ccid.probe import chart_png

    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CcidError, match=r"pip install 'pyccid\[plot\]'"):
        chart_png.write(chart.Picture(1, 1, ()), str(tmp_path / "t.png"))


def test_png_with_an_old_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFont

    from ccid.probe import chart_png

    monkeypatch.setattr(ImageFont, "load_default", lambda: None)
    with pytest.raises(CcidError, match=r"pip install 'pyccid\[plot\]'"):
        chart_png.write(chart.picture(counted("TB3")), str(tmp_path / "t.png"))


def test_a_pattern_is_known_where_it_is_one_byte() -> None:
    known = count([parse("3B 10 18 ..")], "TA1")
    assert (known.present, known.unknown) == (1, 0)
    unknown = count([parse("3B 10 1.")], "TA1")
    assert (unknown.present, unknown.unknown) == (0, 1)
