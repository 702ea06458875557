"""Each target on its corpus and on a few inputs more, from a seed; in full, on a million."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ccid.errors import MalformedAtr
from tests.conftest import Tell
from tests.fuzz import __main__ as command
from tests.fuzz import bounds, seeded
from tests.fuzz.mutation import LONGEST, Mutator
from tests.fuzz.seeded import HERE, Found, corpus, dictionary, run
from tests.fuzz.targets import SLOW, TARGETS

SEED = 16
SMALL, SMALL_OF_SLOW, FULL = 1_000, 100, 1_000_000
"""Inputs for each target."""


@pytest.mark.parametrize("name", TARGETS)
def test_only_errors_of_this_library(name: str, full: bool, tell: Tell) -> None:
    """No other exception, no input over a second or 50 MB."""
    most = FULL if full else SMALL_OF_SLOW if name in SLOW else SMALL
    count = run(name, TARGETS[name], seed=SEED, most=most)
    assert count == len(corpus(name)) + most
    if full:
        tell(f"fuzzing: {name}: {count} inputs, seed {SEED}")


def test_each_target_has_a_corpus_and_no_other_folder_is_there() -> None:
    assert {folder.name for folder in (HERE / "corpus").iterdir()} == set(TARGETS)
    assert all(corpus(name) for name in TARGETS)
    assert {file.stem for file in (HERE / "dictionaries").iterdir()} <= set(TARGETS)
    assert set(TARGETS) > SLOW


def test_corpora_are_small() -> None:
    """So that they may be in git, and an input is quickly run."""
    for name in TARGETS:
        assert max(map(len, corpus(name))) <= LONGEST
        assert sum(map(len, corpus(name))) <= 64 << 10


def test_words_are_as_libfuzzer_reads_them() -> None:
    assert b"\x90\0" in dictionary("t1-host")
    assert b"idVendor" in dictionary("import")
    assert dictionary("notifications") == []


# The machine itself -------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_inputs() -> None:
    one, other, third = (Mutator(s, [b"abc", b"0123456789"], [b"word"]) for s in (1, 1, 2))
    made = [one.next() for _ in range(300)]
    assert made == [other.next() for _ in range(300)]
    assert made != [third.next() for _ in range(300)]
    assert len(set(made)) > 250
    assert any(b"word" in data for data in made)
    assert max(map(len, made)) <= LONGEST


def broken(data: bytes) -> None:
    if len(data) > 4:
        raise KeyError(data[0])
    raise MalformedAtr("this is what may be raised")


def test_a_broken_target_is_found_with_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeded, "corpus", lambda name: [b"abcd"])
    with pytest.raises(Found, match="raises KeyError") as found:
        run("atr", broken, most=1000)
    assert found.value.number > 0
    assert len(found.value.data) > 4
    with pytest.raises(Found) as again:
        run("atr", broken, most=1000)
    assert again.value.data == found.value.data


def test_an_input_that_computes_without_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LONGEST_S", 0.05)

    def endless(data: bytes) -> None:
        while True:
            try:
                random.random()
            except Exception:  # a target that catches too much
                continue

    with pytest.raises(Found, match=r"TooSlow.* at .*\.py:\d+"):
        run("atr", endless, most=1)


def test_an_input_that_waits_without_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(bounds, "HANGING_S", 0.05)
    with pytest.raises(Found, match="TooSlow"):
        run("atr", lambda data: (threading.Event().wait(30) and None) or None, most=1)


def test_an_input_that_takes_much_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    had = bounds.largest()
    monkeypatch.setattr(bounds, "largest", lambda: had)
    run("hexadecimal", lambda data: None, most=1)
    sizes = iter((had, had + bounds.MOST_BYTES + 1))
    monkeypatch.setattr(bounds, "largest", lambda: next(sizes))
    with pytest.raises(Found, match="TooLarge"):
        run("hexadecimal", lambda data: None, most=1)


def test_the_largest_size_is_in_bytes() -> None:
    before = bounds.largest()
    assert 10 << 20 < before < 1 << 40


def test_the_command_keeps_what_breaks_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "CASES", tmp_path)
    monkeypatch.setitem(TARGETS, "atr", broken)
    assert command.main(["atr", "--random", "--seed", "3", "--seconds", "5"]) == 1
    (kept,) = (tmp_path / "atr").iterdir()
    assert str(kept) in capsys.readouterr().out
    with pytest.raises(KeyError):
        command.main(["atr", "--input", str(kept)])


def test_the_command_says_how_many_inputs_there_were(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["hexadecimal", "--random", "--seed", "3", "--seconds", "0.05"]) == 0
    assert capsys.readouterr().out.startswith("seed 3, by chance\nhexadecimal: ")
    assert command.main(["hexadecimal", "--random", "--seed", "3", "--inputs", "7"]) == 0
    count = len(corpus("hexadecimal")) + 7
    assert f"\nhexadecimal: {count} inputs, " in capsys.readouterr().out
    assert command.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(TARGETS)
    with pytest.raises(SystemExit):
        command.main(["no-such-target"])
