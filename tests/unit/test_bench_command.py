"""``ccid-probe bench``: its figures, its JSON, comparisons, and the progress bar."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from ccid.probe import timings
from ccid.probe.progress import progress
from ccid.probe.timings import BadRun, Figures
from tests.unit.conftest import Run
from tests.unit.test_probe import PIN, VERIFY, valid


def flat(us: float, cpu: float = 0.0) -> Figures:
    return timings.figures([us / 1e6] * 3, 3 * cpu / 1e6)


def test_percentiles() -> None:
    found = timings.figures([n / 1e6 for n in range(100, -1, -1)], 0.0)
    assert (found.count, found.min, found.p25, found.p50, found.p90, found.p99, found.max) == (
        101, 0, 25, 50, 90, 99, 100,
    )  # fmt: skip
    assert found.mean == 50
    assert timings.percentile([1, 2], 0.5) == 1.5
    assert timings.percentile([7], 0.99) == 7


@pytest.mark.parametrize(
    ("status", "apdu", "shares"),
    [
        (flat(300, 50), flat(5300, 80), (80, 250, 4970)),
        (flat(300, 400), flat(500, 20), (20, 0, 480)),
        (flat(900, 0), flat(500, 20), (20, 480, 0)),  # the parts are never more than the whole
    ],
)
def test_shares(status: Figures, apdu: Figures, shares: tuple[float, ...]) -> None:
    found = timings.shares(status, apdu)
    assert tuple(found.values()) == shares
    assert sum(found.values()) == apdu.p50


def test_a_difference_is_clear_only_if_the_times_do_not_overlap() -> None:
    before = {"GetSlotStatus": flat(100), "APDU": timings.figures([1e-4, 2e-4, 3e-4], 0)}
    after = {"GetSlotStatus": flat(50), "APDU": timings.figures([1.5e-4, 2.2e-4, 3e-4], 0)}
    status, apdu = timings.compared(before, after)
    assert (status["clear"], status["ratio"]) == (True, 0.5)
    assert apdu["clear"] is False


def test_a_run_is_saved_and_compared(run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "run.json")
    status, out, _ = run("bench", "--virtual", "--count", "3", "--json", "--save", file)
    assert status == 0
    document = valid(out, "bench")
    assert document["measured"]["APDU"]["count"] == 3
    assert valid(Path(file).read_text(), "bench") == document
    status, out, _ = run("bench", "--virtual", "--count", "3", "--json", "--compare", file)
    assert status == 0
    assert [row["what"] for row in valid(out, "bench")["compared"]] == ["GetSlotStatus", "APDU"]
    status, out, _ = run("bench", "--compare", file, file)
    assert status == 0
    assert "not clear: the times overlap" in out
    assert "of the APDU's median: host" in out


def test_fields_that_a_file_has_beside_those_of_a_run_are_not_passed_on(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    run("bench", "--virtual", "--count", "1", "--save", str(file))
    good = json.loads(file.read_text())
    more = {**good, "more": 1, "system": {**good["system"], "more": 2}, "shares_us": None}
    more["measured"] = {**good["measured"], "more": {}}
    file.write_text(json.dumps(more))
    status, out, _ = run("bench", "--json", "--compare", str(file), str(file))
    assert status == 0
    assert {**valid(out, "bench"), "compared": None} == good


def test_a_pin_is_in_no_run(run: Run) -> None:
    for more in ((), ("--json",)):
        status, out, err = run("bench", "--virtual", "--count", "1", "--apdu", VERIFY, *more)
        assert status == 0
        assert PIN not in out + err


def test_a_ratio_beyond_a_float_is_none(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    run("bench", "--virtual", "--count", "1", "--save", str(file))
    good = json.loads(file.read_text())
    apdu = {**good["measured"]["APDU"], "p50": 5e-324}
    tiny = tmp_path / "tiny.json"
    tiny.write_text(json.dumps({**good, "measured": {**good["measured"], "APDU": apdu}}))
    status, out, _ = run("bench", "--json", "--compare", str(tiny), str(file))
    assert (status, "Infinity" in out) == (0, False)
    assert json.loads(out)["compared"][1]["ratio"] is None


def test_what_is_no_run(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    run("bench", "--virtual", "--count", "1", "--save", str(file))
    good = json.loads(file.read_text())
    measured = good["measured"]
    wrong = [
        ([], "this is no run"),
        ({**good, "schema": "ccid-probe/bench/2"}, "this is no run"),
        ({**good, "measured": None}, "measured has no GetSlotStatus"),
        ({**good, "measured": {**measured, "APDU": 1}}, "measured has no APDU"),
        ({**good, "measured": {**measured, "APDU": {**measured["APDU"], "p50": "\x1b"}}}, "p50 of"),
        ({**good, "measured": {**measured, "APDU": {**measured["APDU"], "p50": 1e13}}}, "p50 of"),
        ({**good, "name": math.nan}, "this is no JSON"),
        ({**good, "name": -math.inf}, "this is no JSON"),
        ({**good, "measured": {**measured, "APDU": {**measured["APDU"], "p50": True}}}, "p50 of"),
    ]
    spoilt: dict[str, Any] = {
        "slot": True,
        "bcdDevice": -1,
        "atr": "3b",
        "system": [],
        "exchange": {**good["exchange"], "masked": 1},
        "protocol": "T=2",
        "versions": {**good["versions"], "libusb": 1},
        "id": None,
        "name": 7,
    }
    wrong += [({**good, name: value}, name) for name, value in spoilt.items()]
    for document, error in wrong:
        with pytest.raises(BadRun) as caught:
            timings.read_run(json.dumps(document), "run.json")
        assert error in str(caught.value)
        assert "\x1b" not in str(caught.value)
    huge = json.dumps({**good, "name": 7.5}).replace("7.5", "1e400")
    for text in ("", "{", "[" * 100_000, huge):
        file.write_text(text)
        status, _, err = run("bench", "--compare", str(file))
        assert (status, "this is no JSON" in err) == (1, True)


@pytest.mark.parametrize("words", [["--count", "0"], ["--count", "x"], ["--apdu", "00A"]])
def test_wrong_command_lines(run: Run, words: list[str]) -> None:
    assert run("bench", "--virtual", *words)[0] == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("has_rich", [True, False])
def test_the_progress_bar(monkeypatch: pytest.MonkeyPatch, has_rich: bool) -> None:
    """A terminal sees how far the work is; a file gets nothing."""
    if not has_rich:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    for stream, is_shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress("work [x]\x1b", 4) as done:
            for n in range(1, 5):
                done(n)
        assert ("100" in stream.getvalue() or "work" in stream.getvalue()) == is_shown
        if not has_rich:
            assert "\x1b" not in stream.getvalue()
