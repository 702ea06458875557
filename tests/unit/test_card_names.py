"""Which card an ATR may belong to: registered storage cards, and a list such as pcsc-tools'."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.iso7816.atr import Atr
from ccid.iso7816.storage_card_names import STORAGE_NAMES, STORAGE_STANDARDS
from ccid.probe import card_names
from ccid.probe.card_names import CardList, fits, found, parts
from ccid.virtual.cards.picc import storage_atr
from tests.unit.conftest import Run

LIST = """\
# a comment
3B 02 41 42
\tThe card
\thttps://example.org

3B 02 41 4[1-3]
\tA family
3B 02 [0,4]. ..
\tA large family
3B .*
\tAny card
3b 02 41 42
\tThe card, once more
3B 02 41 (42
\tno pattern
\t
3F .. ..
\tInverse
"""


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list that is this machine's."""
    file = tmp_path / "smartcard_list.txt"
    file.write_text(LIST, "utf-8")
    monkeypatch.setenv(card_names.VARIABLE, str(file))
    return file


def named(atr: str) -> tuple[str, ...]:
    return found(CardList(LIST.splitlines()), bytes.fromhex(atr))


def test_the_atr_itself_then_the_patterns() -> None:
    assert named("3B024142") == (
        "The card", "https://example.org", "The card, once more", "A family", "A large family",
        "Any card",
    )  # fmt: skip
    assert named("3B024144") == ("A large family", "Any card")
    assert named("3B0141") == ("Any card",)
    assert named("3F0100") == ("Inverse",)
    assert named("3F010000") == ()


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("3B..", ["3B00", "3BFF"], ["3B", "3B0", "3B000", "3F00"]),
        ("3B.*", ["3B", "3B01", "3B0102"], ["3F"]),
        ("3B.*90", ["3B90", "3B0090", "3B9090"], ["3B9000"]),
        (".*8.*9", ["89", "1829"], ["98"]),
        ("3[BF]", ["3B", "3F"], ["3C"]),
        ("3[0-2,A-B]", ["30", "32", "3A", "3B"], ["33", "3C"]),
        ("3[0--]", ["30"], ["31", "3F"]),
        ("3[-5,1-]", ["35", "31"], ["30", "32"]),
        ("", [""], ["3B"]),
    ],
)
def test_patterns(pattern: str, fitting: list[str], others: list[str]) -> None:
    assert [fits(parts(pattern), text) for text in fitting] == [True] * len(fitting)
    assert [fits(parts(pattern), text) for text in others] == [False] * len(others)


@pytest.mark.parametrize("wrong", ["3B(", "3B*", "3B[", "3B[]", "3B[G]", "zz", "3B?" * 200])
def test_what_is_no_pattern_fits_nothing(wrong: str) -> None:
    assert parts(wrong) is None
    assert not fits(None, "3B")


@given(st.text("3B.*[],-09AF", max_size=40), st.binary(max_size=20))
def test_any_line(pattern: str, atr: bytes) -> None:
    parts(pattern)
    found(CardList([pattern, "\tname"]), atr)


@given(st.text("-,09", min_size=1, max_size=5))
def test_any_set(digits: str) -> None:
    """``found-open-range`` of the fuzzing corpus was a range from 0 to a hyphen."""
    made = parts(f"[{digits}]")
    assert made is None or set("".join(made)) <= set("0123456789ABCDEF")


def test_a_hostile_pattern_ends() -> None:
    """A regular expression with backtracking takes for ever."""
    assert not fits(parts(".*0" * 90), "1" * 66)
    assert not fits(parts(".*1" * 90), "1" * 66)


def test_where_the_list_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert card_names.list_file() is None  # the tests' own setting
    monkeypatch.delenv(card_names.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(card_names, "SYSTEM_FILES", (str(tmp_path / "system.txt"),))
    assert card_names.list_file() is None
    for name in ("system.txt", ".smartcard_list.txt", "cache/smartcard_list.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(LIST)
        assert card_names.list_file() == str(file)


def test_the_command_says_which_card_it_may_be(run: Run, listed: Path) -> None:
    status, out, err = run("atr", "3B024144")
    assert (status, err) == (0, "")
    assert out.endswith("\n  Card: A large family\n  Card: Any card\n")
    _, out, _ = run("atr", "--json", "3B024144")
    assert json.loads(out)["atrs"][0]["cards"] == ["A large family", "Any card"]


def test_the_card_in_the_reader_is_named_too(run: Run, listed: Path) -> None:
    status, out, err = run("card", "--virtual")
    assert (status, err) == (0, "")
    assert "\n  Card: Any card\nProtocol: T=1\n" in out
    _, out, _ = run("card", "--virtual", "--json")
    assert json.loads(out)["cards"] == ["Any card"]


def test_the_shell_names_its_card(run: Run, listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"atr\n"), "utf-8"))
    status, out, err = run("shell", "--virtual")
    assert (status, err) == (0, "")
    assert "\n  Card: Any card\nProtocol: T=1\n" in out


def test_an_atr_of_a_list_is_described_by_that_list(run: Run, listed: Path) -> None:
    _, out, _ = run("atr", str(listed))
    assert "Card:" not in out.split("\n\n")[0]


def test_text_of_the_list_is_data(run: Run, listed: Path) -> None:
    listed.write_text("3B 00\n\tan \x1b[31mevil\x07 card\n")
    _, out, _ = run("atr", "3B00")
    assert "\x1b" not in out
    assert "evil" in out


def test_a_list_that_is_not_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(card_names.VARIABLE, str(tmp_path / "nowhere"))
    status, _, err = run("atr", "3B00")
    assert status == 1
    assert "nowhere" in err


# Registered names -------------------------------------------------------------------------------


def test_registered_names() -> None:
    assert len(STORAGE_NAMES) == 61
    for standard in STORAGE_STANDARDS:
        for name, text in STORAGE_NAMES.items():
            explained = Atr.parse(storage_atr(standard, name)).explain()
            assert f"= {text}\n" in explained
            assert f"{standard:02X} = {STORAGE_STANDARDS[standard]}\n" in explained
    assert "= another card" in Atr.parse(storage_atr(3, 0xF004)).explain()
    assert "08 = another standard" in Atr.parse(storage_atr(8, 1)).explain()


# ccid-probe card --------------------------------------------------------------------------------


def test_the_uid_of_a_storage_card(run: Run) -> None:
    status, out, err = run("card", "--virtual", "072f:2200", "--card", "ntag215")
    assert (status, err) == (0, "")
    assert "= Mifare Ultralight\n" in out
    assert out.endswith("Protocol: T=1\nUID: 04 A1 B2 C3 D4 E5 F6\n")


def test_the_uid_and_ats_of_a_contactless_card(run: Run) -> None:
    _, out, _ = run("card", "--virtual", "--card", "contactless")
    assert "\nUID: 04 11 22 33 44 55 66\nATS: 80 31 F0" in out
    assert "SELECT MF\n< 90 00" in out


def test_a_card_with_contacts_is_not_asked(run: Run) -> None:
    _, out, _ = run("card", "--virtual")
    assert "UID" not in out
