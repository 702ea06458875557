"""tools/update-readers: what a release of libccid has otherwise than the table of readers. The
lists are made up here, and some of them are made to do harm."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import plistlib
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from libccid_release import release_lists, table_changes  # noqa: E402
from libccid_release.release_dumps import new_figures  # noqa: E402
from libccid_release.release_lists import Listed, from_list, from_plist, joined  # noqa: E402

from ccid.errors import ReaderTableError  # noqa: E402
from ccid.known.quirks.table_entries import Source  # noqa: E402
from ccid.probe.imported import devices  # noqa: E402

KEYS = ("ifdVendorID", "ifdProductID", "ifdFriendlyName")
Row = tuple[Any, Any, Any]


def plist(*rows: Row, **more: Any) -> bytes:
    lists = dict(zip(KEYS, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}
    return plistlib.dumps({"CFBundleShortVersionString": "9.9", **lists, **more})


ONE = ("0x1111", "0x0001", "One")
LIST = """#
# List of readers

##########################
# section: supported
##########################

# Ones
0x1111:0x0001:One

##########################
# section: shouldwork
##########################

# Twos & Co.
0x2222:0x00AB:Two

##########################
# section: unsupported
##########################
0x2222:0x00AC:Two and a half

##########################
# section: disabled
##########################
#0x1111:0x0002:One that is out

##########################
# section: duplicates
##########################
#0x1111:0x0001:One (one.txt)
#0x1111:0x0001:Another one (other.txt)
"""
TABLE = {
    "1111-ones.toml": """vendor = "Ones"

[quirks]
firmware-escape = "02"

[reader.0001]
name = "One"
status = "supported"
quirks.no-pin-support = true  # a remark stays

[[reader.0001.when]]
max-bcdDevice = 0x01FF
quirks.dwMaxDataRate = 125000

[reader.0007]
name = "Seven"
status = "should-work"

[reader.00a0]
name = "By hand"
status = "disabled"
reason = "because"
""",
}


def read(rows: Sequence[Row], text: str = "") -> dict[str, Listed]:
    listed = from_list(text.encode(), "list") if text else {}
    return joined(from_plist(plist(*rows), "plist")[1], listed)


def changed(release: dict[str, Listed]) -> tuple[list[str], dict[str, str]]:
    found = table_changes.changes(release, table_changes.entries(TABLE))
    return [str(one) for one in found], table_changes.edited(TABLE, found)


# The lists ------------------------------------------------------------------------------------


def test_a_plist() -> None:
    version, readers = from_plist(plist(ONE, ("0xABCD", "0xef01", "Müller & <Söhne>")), "plist")
    assert version == "9.9"
    assert readers == {
        "1111:0001": Listed("1111:0001", "One"),
        "abcd:ef01": Listed("abcd:ef01", "Müller & <Söhne>"),
    }


def test_a_list_of_supported_readers() -> None:
    readers = from_list(LIST.encode(), "list")
    assert list(readers.values()) == [
        Listed("1111:0001", "One", "supported", "Ones"),
        Listed("2222:00ab", "Two", "should-work", "Twos & Co."),
        Listed("2222:00ac", "Two and a half", "unsupported", "Twos & Co."),
        Listed("1111:0002", "One that is out", "disabled", "Twos & Co."),
    ]


def test_the_name_is_that_of_the_plist_and_the_status_that_of_the_list() -> None:
    readers = read([("0x1111", "0x0001", "Uno")], LIST)
    assert readers["1111:0001"] == Listed("1111:0001", "Uno", "supported", "Ones")
    assert list(readers) == ["1111:0001", "1111:0002", "2222:00ab", "2222:00ac"]


HEAD = (
    b'<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" '
    b'"http://www.apple.com/DTDs/PropertyList-1.0.dtd"'
)
BOMB = HEAD + b' [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><plist>&b;</plist>'
OUTSIDE = HEAD + b' [<!ENTITY a SYSTEM "file:///etc/passwd">]><plist>&a;</plist>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no property list"),
        (b"\x00" * 100, "no property list"),
        (b"<plist><dict>", "no property list"),
        (b"<plist><date>yesterday</date></plist>", "no property list"),
        (b"<plist><integer>" + b"9" * 10000 + b"</integer></plist>", "no property list"),
        (b"<plist><dict><string>a</string></dict></plist>", "no property list"),
        (b"<plist>" + b"<array>" * 100000, "no property list"),
        (BOMB, "no property list"),
        (OUTSIDE, "no property list"),
        (plistlib.dumps({}, fmt=plistlib.FMT_BINARY), "no property list"),
        (b"<plist></plist>", "no property list of a driver"),
        (b"<plist><array/></plist>", "no property list of a driver"),
        (plist(), "ifdVendorID: a list of strings"),
        (plist(ONE, ifdProductID="0x0001"), "ifdProductID: a list of strings"),
        (plist(ONE, ifdFriendlyName=[1]), "ifdFriendlyName: a list of strings"),
        (plist(ONE, ifdFriendlyName=[]), "lists of one length are wanted, not 1, 1, 0"),
        (plist(("0x11111", "0x0001", "One")), "ifdVendorID[0]: '0x11111' is no id"),
        (plist(ONE, ("0x1111", "../..", "x")), "ifdProductID[1]: '../..' is no id"),
        (plist(("0x1111", "0x0001\n", "One")), r"'0x0001\n' is no id"),
        (plist(ONE, ONE), "1111:0001 is listed twice"),
        (plist(("0x1111", "0x0001", "")), "a name of 1 to 128"),
        (plist(("0x1111", "0x0001", " ")), "a name of 1 to 128"),
        (plist(("0x1111", "0x0001", "x" * 129)), "a name of 1 to 128"),
    ],
)
def test_a_plist_that_is_none(content: bytes, said: str) -> None:
    with pytest.raises(ReaderTableError) as caught:
        from_plist(content, "there/Info.plist")
    assert str(caught.value).startswith("there/Info.plist: ")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "list: cannot be read"),
        (b"0x1111:0x0001:One\n", "list:1: a reader before any section"),
        (b"# section: wonderful\n", "list:1: 'wonderful' is no section"),
        (b"\n\nhello\n", "list:3: a reader is wanted here"),
        (b"# section: supported\n0x1111:0x0001:\n", "list:2: ''"),
        (b"# section: supported\n" + b"0x1111:0x0001:a\n" * 2, "list:3: 1111:0001 is listed twice"),
        (b"# section: supported\n0x1111:0x001:One\n", "list:2: a reader is wanted here"),
    ],
)
def test_a_list_that_is_none(content: bytes, said: str) -> None:
    with pytest.raises(ReaderTableError) as caught:
        from_list(content, "list")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("read_it", [from_plist, from_list])
def test_a_file_that_is_too_long(read_it: Any) -> None:
    with pytest.raises(ReaderTableError, match="longer than 4194304 bytes"):
        read_it(b" " * (release_lists.MAX_BYTES + 1), "long")


def test_too_many_readers() -> None:
    lines = "\n".join(f"0x1111:0x{n:04X}:x" for n in range(release_lists.MAX_READERS + 1))
    with pytest.raises(ReaderTableError, match=r"list:4002: more than 4000 readers"):
        from_list(f"# section: supported\n{lines}".encode(), "list")


def test_a_name_is_data() -> None:
    readers = from_list(b"# section: shouldwork\n0x1111:0x0003:x\x1b[2J\n", "list")
    assert readers["1111:0003"].name == r"x\x1b[2J"
    evil = 'x"\nstatus = "supported\u202e\\'
    rows = [ONE, ("0x1111", "0x0007", "Seven"), ("0x1111", "0x0003", evil)]
    found, after = changed(read(rows))
    assert all(line.isprintable() for line in found)
    entry = tomllib.loads(after["1111-ones.toml"])["reader"]["0003"]
    assert entry == {
        "name": 'x"\\nstatus = "supported\\u202e\\',
        "status": "should-work",
    }


# The change -----------------------------------------------------------------------------------


def test_nothing_differs() -> None:
    assert changed(read([ONE, ("0x1111", "0x0007", "Seven")])) == ([], {})


def test_all_that_may_differ() -> None:
    text = LIST.replace("0x1111:0x0001:One\n", "0x1111:0x0007:Seven\n0x1111:0x00A0:By hand\n", 1)
    rows = [("0x1111", "0x0007", "VII"), ("0x2222", "0x00AB", "Two")]
    found, after = changed(read(rows, text))
    assert found == [
        "new      1111:0002  One that is out (disabled)",
        "new      2222:00ab  Two (should-work)",
        "new      2222:00ac  Two and a half (unsupported)",
        "renamed  1111:0007  Seven -> VII",
        "status   1111:0007  VII: should-work -> supported",
        "kept     1111:00a0  By hand: supported there, disabled here: because",
        "gone     1111:0001  One (supported)",
    ]
    assert sorted(after) == ["1111-ones.toml", "2222-twos-co.toml"]
    assert after["2222-twos-co.toml"] == (
        'vendor = "Twos & Co."\n\n[reader.00ab]\nname = "Two"\nstatus = "should-work"\n\n'
        '[reader.00ac]\nname = "Two and a half"\nstatus = "unsupported"\n'
    )
    assert after["1111-ones.toml"] == TABLE["1111-ones.toml"].replace(
        '[reader.0007]\nname = "Seven"\nstatus = "should-work"\n',
        '[reader.0002]\nname = "One that is out"\nstatus = "disabled"\n'
        'reason = "libccid leaves it out and gives no reason"\n\n'
        '[reader.0007]\nname = "VII"\nstatus = "supported"\n',
    )
    patch = table_changes.difference(TABLE, after)
    assert "--- a/readers/1111-ones.toml\n+++ b/readers/1111-ones.toml\n" in patch
    assert "--- /dev/null\n+++ b/readers/2222-twos-co.toml\n" in patch


def test_a_plist_alone_knows_no_status() -> None:
    found, after = changed(read([ONE, ("0x1111", "0x0007", "Seven"), ("0x1111", "0x00B0", "Late")]))
    assert found == ["new      1111:00b0  Late (status unknown: there is no supported_readers.txt)"]
    assert after["1111-ones.toml"].endswith(
        '\n\n[reader.00b0]\nname = "Late"\nstatus = "should-work"\n'
    )


def test_a_reader_that_is_disabled_now_says_why() -> None:
    text = "# section: disabled\n#0x1111:0x0007:Seven\n"
    found, after = changed(read([ONE], text))
    assert found == ["status   1111:0007  Seven: should-work -> disabled"]
    entry = Source("f", after["1111-ones.toml"]).entry("0007")
    assert entry is not None
    assert (entry.status, entry.reason) == ("disabled", table_changes.NO_REASON)


def test_an_entry_in_another_form_is_left_to_the_hand() -> None:
    texts = {"1111-ones.toml": 'vendor = "x"\nreader.0001 = {name = "x", status = "supported"}\n'}
    found = table_changes.changes(read([ONE]), table_changes.entries(texts))
    with pytest.raises(ReaderTableError, match=r"1111-ones.toml: reader.0001.name: not on a line"):
        table_changes.edited(texts, found)


@pytest.mark.parametrize(
    ("vendor", "slug"),
    [
        ("Twos & Co.", "twos-co"),
        ("../../etc/passwd", "etc-passwd"),
        ("…", "vendor"),
        ("x" * 99, "x" * 24),
        ("Ünïcode Ltd", "n-code-ltd"),
    ],
)
def test_the_name_of_a_new_file(vendor: str, slug: str) -> None:
    assert table_changes.slug(vendor) == slug


# Dumps ----------------------------------------------------------------------------------------

PARSED = (ROOT / "tests" / "unit" / "data" / "parse.txt").read_bytes()


def test_dumps() -> None:
    known = devices(PARSED, "parse.txt")
    assert new_figures([("a.txt", PARSED)], known, {"1234:5678"}) == []
    older = PARSED.replace(b"bcdDevice: 5.31", b"bcdDevice: 5.30")
    other = PARSED.replace(b"dwMaxIFSD: 254", b"dwMaxIFSD: 253")
    files = [("old.txt", older), ("new.txt", PARSED), ("other.txt", other), ("bad.txt", b"\xff")]
    assert [str(dump) for dump in new_figures(files, known, {"1234:5678"})][:2] == [
        "figures  1234:5678  another release, bcdDevice 0530: old.txt",
        "figures  1234:5678  other figures for bcdDevice 0531: other.txt",
    ]
    (unread,) = new_figures(files[3:], [], set())
    assert str(unread).startswith("unread   bad.txt: ")
    assert not unread.wanted
    (one,) = new_figures(files[1:2], [], {"1234:5678"})
    assert (one.text, one.wanted) == ("no figures yet", True)
    (none,) = new_figures(files[1:2], [], set())
    assert (none.text, none.wanted) == ("a reader that is in no list", False)


# The program ----------------------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """tools/update-readers, with a table of its own in ``tmp_path`` and no programs to run."""
    loader = importlib.machinery.SourceFileLoader(
        "update_readers", str(ROOT / "tools" / "update-readers")
    )
    spec = importlib.util.spec_from_loader("update_readers", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setenv("CCID_READERS", "")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    loader.exec_module(module)
    table = tmp_path / "table"
    table.mkdir()
    for name, text in TABLE.items():
        (table / name).write_text(text, "utf-8")
    monkeypatch.setattr(module, "READERS", table)
    monkeypatch.setattr(module, "ran", [], raising=False)
    monkeypatch.setattr(module, "tool", lambda *words: module.ran.append(words))
    monkeypatch.setattr(module, "all_figures", lambda: iter(()))
    return module


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "src").mkdir(parents=True)
    (folder / "readers").mkdir()
    (folder / "Info.plist").write_bytes(plist(ONE, ("0x2222", "0x00AB", "Two")))
    (folder / "src" / "supported_readers.txt").write_text(LIST, "utf-8")
    (folder / "readers" / "supported_readers.txt").write_text("not read")
    return folder


def test_it_prints_a_patch_and_changes_nothing(
    tool: Any, release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([str(release)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("libccid 9.9: 4 readers, 0 dumps\nnew      1111:0002")
    assert '\n+name = "Two"\n' in out
    assert {file.name: file.read_text() for file in tool.READERS.iterdir()} == TABLE
    assert tool.ran == []


def test_written_it_says_nothing_the_next_time(
    tool: Any, release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = release / "readers" / "two.txt"
    dump.write_bytes(PARSED.replace(b"0x1234", b"0x2222").replace(b"0x5678", b"0x00AB"))
    (release / "readers" / "none.txt").write_bytes(PARSED)
    assert tool.main(["--write", str(release)]) == 0
    assert tool.ran == [("supported-readers",), ("reader-figures", str(dump))]
    assert (tool.READERS / "2222-twos-co.toml").is_file()
    capsys.readouterr()
    assert tool.main([str(release)]) == 0
    assert capsys.readouterr().out == (
        "libccid 9.9: 4 readers, 2 dumps\n"
        "gone     1111:0007  Seven (should-work)\n"
        "figures  1234:5678  a reader that is in no list: readers/none.txt\n"
        "figures  2222:00ab  no figures yet: readers/two.txt\n"
    )


def test_a_link_out_of_the_folder_is_not_followed(
    tool: Any, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an unpacked package of Debian, the bundle's Info.plist is a link to this host's /etc."""
    (release / "Info.plist").rename(tmp_path / "outside")
    (release / "Info.plist").symlink_to(tmp_path / "outside")
    (release / "src" / "supported_readers.txt").unlink()
    (release / "readers" / "supported_readers.txt").unlink()
    os.mkfifo(release / "libccid_Info.plist")  # nobody waits for it
    assert tool.main([str(release)]) == 1
    assert "neither Info.plist nor supported_readers.txt is there" in capsys.readouterr().err


def test_an_error_has_no_characters_that_a_terminal_obeys(
    tool: Any, release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (release / "src" / "supported_readers.txt").write_text("# section: \x1b[2J\n")
    assert tool.main([str(release)]) == 1
    assert capsys.readouterr().err.rstrip("\n").isprintable()


@pytest.mark.parametrize("words", [[], ["--write"], ["--help"], ["a", "b"], ["--frob", "a"]])
def test_wrong_command_lines(tool: Any, words: list[str]) -> None:
    assert tool.main(words) == 2


def test_a_folder_that_is_not_there(tool: Any, tmp_path: Path) -> None:
    assert tool.main([str(tmp_path / "nowhere")]) == 1


def test_the_real_table_is_read_as_it_is() -> None:
    """Every entry stands on lines of its own, so that the program can change each."""
    texts = {f.name: f.read_text("utf-8") for f in sorted((ROOT / "readers").glob("*.toml"))}
    table = table_changes.entries(texts)
    other = {"supported": "disabled"}
    release = {
        id_: Listed(id_, f"{entry.name} II", other.get(entry.status or "", "supported"))
        for id_, entry in table.items()
    }
    found = table_changes.changes(release, table)
    after = table_changes.entries({**texts, **table_changes.edited(texts, found)})
    by_hand = {id_ for id_, entry in table.items() if entry.reason is not None}
    assert {c.reader.id for c in found if c.kind == "kept"} == by_hand
    for id_, reader in release.items():
        wanted = table[id_] if id_ in by_hand else reader
        assert (after[id_].name, after[id_].status) == (wanted.name, wanted.status)
