"""The native measurement, ``tools/bench-native``, with the smallest counts: every way gives the
right answers, and every table has its rows. No figure is asserted.

It is skipped where it cannot run at all: without root, or without a C compiler.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.native import readme
from tests.bench.native.__main__ import (
    PARTS,
    README,
    Results,
    arguments,
    results_of,
    run,
    text_of,
)
from tests.bench.native.bench import Bench, Options
from tests.bench.native.client import WrongAnswerError
from tests.bench.native.connect import IN_PROCESS, WITH_PYTHON
from tests.bench.native.profiles import PROFILES
from tests.bench.native.ways import WAYS, Driver
from tests.conftest import Tell

SIZES = (271, 65556)
"""dwMaxCCIDMessageLength: 64 KiB in many messages, and in one."""
TRANSFERS = 2
"""Of an APDU through a reader at TPDU level in T=0: a command and a reply."""


@pytest.fixture(scope="module")
def options(native: None, tmp_path_factory: pytest.TempPathFactory) -> Options:
    """The smallest counts, where this machine can measure at all."""
    work = tmp_path_factory.mktemp("native")
    return Options(
        work, Path(sys.executable), rounds=1, scale=0.02, readers=2, sizes=SIZES, idle_s=0.1
    )


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the measurement printed."""
    return []


@pytest.fixture(scope="module")
def results(options: Options, told: list[str]) -> Results:
    """Everything, at one profile."""
    return run(options, ["hs"], list(PARTS), told.append)


@pytest.fixture
def bench(options: Options, results: Results) -> Bench:
    """Another bench, with the programs that are built."""
    assert results
    return Bench(options)


def test_all_ways_answer(results: Results, told: list[str], tell: Tell) -> None:
    rows = results["apdus"]["hs"]
    assert [row.way for row in rows] == list(WAYS)
    for row in rows:
        assert row.transfers == TRANSFERS
        assert 0 < row.least <= row.p50 <= row.p99
        assert row.cpu >= row.client_cpu > 0
        daemons = {None: 0, Driver.LIBCCID: 1, Driver.CCID: 2}[WAYS[row.way].driver]
        assert len(row.rss) == 1 + daemons
    tell("\n".join(["the native measurement, with counts too small to say much", *told]))


def test_first_response(results: Results) -> None:
    titles = {row.title for row in results["connect"]["hs"]}
    assert titles == {
        IN_PROCESS,
        WITH_PYTHON,
        *(f"{way} {what}" for way in ("C2", "D2")
          for what in ("a client of a pcscd that runs", "with pcscd's start")),
    }  # fmt: skip
    for row in results["connect"]["hs"]:
        assert row.least <= row.ms <= row.most
        assert row.out > 0
        assert row.in_ > 0


def test_parallel(results: Results) -> None:
    rows = results["parallel"]["hs"]
    assert [row.way for row in rows] == ["A2", "A1", "A1", "B", "B", "C2", "C", "D2", "D"]
    assert all(row.rate_one > 0 and row.rate_many > 0 for row in rows)


def test_large(results: Results) -> None:
    rows = results["large"]["hs"]
    ways = [way for way in WAYS if way not in ("A", "A1")]
    expected = {
        (most, way, direction)
        for most in SIZES
        for way in ways
        for direction in ("to", "from")
        if way != "A2" or most == max(SIZES)
    }
    assert {(row.most, row.way, row.direction) for row in rows} == expected
    small = [row for row in rows if row.most == min(SIZES)]
    assert all(row.transfers > 2 * 65535 // min(SIZES) for row in small)


def test_idle(results: Results) -> None:
    rows = results["idle"]["hs"]
    assert len(rows) == 4
    assert all(row.memory for row in rows)


def test_every_table_is_told(results: Results, told: list[str]) -> None:
    text = "\n".join(told)
    for part, by_profile in results.items():
        assert f"\n{part} · hs · " in text
        for row in by_profile["hs"]:
            title = row.title if part in ("connect", "idle") else row.way
            assert title in text


def test_figures_of_a_file_are_those_that_were_written(results: Results) -> None:
    """``--readme --from FILE`` writes what ``--readme`` would have written after the run."""
    again, where = results_of(text_of(results, "on a machine"))
    assert where == "on a machine"
    assert text_of(again, where) == text_of(results, "on a machine")
    for part, by_profile in results.items():
        assert PARTS[part].lines(again[part]["hs"]) == PARTS[part].lines(by_profile["hs"])


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"where": 1}', '{"where": "", "apdus": {"hs": [{"x": 1}]}}', "no JSON"]
)
def test_a_file_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not what|apdus: |Expecting"):
        results_of(text)


@pytest.mark.parametrize("name", ["A2", "A", "A1", "B"])
def test_t1(bench: Bench, name: str) -> None:
    t1 = Bench(replace(bench.options, protocol=1))
    with t1.client(WAYS[name], {}) as client:
        for count in (3, 4):
            assert client.run(count).counted.apdus == count


def test_a_wrong_answer_is_found_out(bench: Bench) -> None:
    with bench.client(WAYS["B"], {}, reply=bytes.fromhex("00029000")) as client:
        with pytest.raises(WrongAnswerError, match="a response of 4 bytes"):
            client.run(1)


def test_a_lost_apdu_is_found_out(bench: Bench) -> None:
    with bench.client(WAYS["A2"], {}) as client:
        client.run(1)
        client.counters.path.write_bytes(bytes(client.counters.path.stat().st_size))
        before = client.counters.now
        client.counters.now = lambda: before().since(before())  # type: ignore[method-assign]
        with pytest.raises(WrongAnswerError, match="the card saw 0 APDUs of 1"):
            client.run(1)


def test_delays_are_slept(bench: Bench) -> None:
    """A transfer takes no less than its time on the bus."""
    with bench.client(WAYS["A2"], {"STANDIN_OUT_US": 3000, "STANDIN_IN_US": 3000}) as client:
        found = client.run(5)
    assert found.p50 >= 2 * 3000
    assert found.client_cpu < found.wall / 2


def test_options() -> None:
    given = arguments(["--profiles", "hs,fs+20", "--parts", "apdus", "--rounds", "3", "--pin", "1"])
    assert given.profiles == ("hs", "fs+20")
    assert given.parts == ("apdus",)
    assert (given.rounds, given.pin) == (3, 1)
    assert arguments([]).profiles is None
    assert set(arguments([]).parts) == set(PARTS)


def test_readme(results: Results, tmp_path: Path) -> None:
    """The table is made of the rows, between the marks, and nothing else is touched."""
    all_profiles = {**results, "apdus": dict.fromkeys(PROFILES, results["apdus"]["hs"])}
    path = tmp_path / "README.md"
    path.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    readme.write(path, readme.block(all_profiles, "here"))
    text = path.read_text()
    assert text.startswith(f"before\n{readme.BEGIN}\n")
    assert text.endswith(f"{readme.END}\nafter\n")
    assert "old" not in text
    assert all(name in text for name in (*readme.NAMES.values(), *readme.TIMES.values()))
    for line in text.splitlines():
        if "times as fast" in line:
            assert line.count("times as fast") == len(readme.TIMES)
    with pytest.raises(readme.ReadmeError, match=r"needs 0, fs, hs\+5, fs\+20, too"):
        readme.block(results, "here")
    path.write_text("no marks")
    with pytest.raises(readme.ReadmeError, match="lacks the marks"):
        readme.write(path, "")


def test_readme_has_the_marks() -> None:
    text = README.read_text("utf-8")
    assert 0 < text.index(readme.BEGIN) < text.index(readme.END)


@pytest.mark.parametrize("words", [["--profiles", "usb4"], ["--parts", ""], ["--ways", "Z"]])
def test_what_is_unknown(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(words)
    assert "is none of" in capsys.readouterr().err
