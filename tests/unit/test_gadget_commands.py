"""``ccid-probe buzz`` and ``ccid-probe led``."""

from __future__ import annotations

import pytest

from ccid.device import reader as reader_module
from tests.unit.conftest import Run
from tests.unit.test_probe import valid

ACR1255 = "072f:223f"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the reader was told, and did."""
    told: list[object] = []
    buzzer, led = reader_module.Reader.buzzer, reader_module.Reader.led

    def buzzes(self: reader_module.Reader, seconds: float = 0.2) -> None:
        buzzer(self, seconds)
        told.append(seconds)

    def shines(self: reader_module.Reader, *lit: str) -> None:
        led(self, *lit)
        told.append(lit)

    monkeypatch.setattr(reader_module.Reader, "buzzer", buzzes)
    monkeypatch.setattr(reader_module.Reader, "led", shines)
    return told


def test_a_tone(run: Run, done: list[object]) -> None:
    assert run("buzz", "--virtual", ACR1255) == (0, "ACS ACR1255U-J1: a tone of 0.2 s\n", "")
    _, out, _ = run("buzz", "--virtual", ACR1255, "--seconds", "0.5", "--json")
    assert valid(out, "buzz")["seconds"] == 0.5
    assert done == [0.2, 0.5]


def test_leds(run: Run, done: list[object]) -> None:
    """Without a name nothing is switched."""
    assert run("led", "--virtual", ACR1255)[1] == "ACS ACR1255U-J1: green, red, blue, red-2\n"
    assert done == []
    assert run("led", "--virtual", ACR1255, "red", "blue", "red")[0] == 0
    assert run("led", "--virtual", ACR1255, "off")[1] == "ACS ACR1255U-J1: all off\n"
    assert done == [("red", "blue"), ()]
    document = valid(run("led", "--virtual", ACR1255, "green", "--json")[1], "led")
    assert (document["leds"], document["lit"]) == (["green", "red", "blue", "red-2"], ["green"])
    assert valid(run("led", "--virtual", ACR1255, "--json")[1], "led")["lit"] is None


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["buzz", "--virtual"], 1, "the table of readers has no command for the buzzer"),
        (["led", "--virtual"], 1, "the table of readers knows no LEDs of this reader"),
        (["led", "--virtual", "green"], 1, "the table of readers has no command for the LEDs"),
        (["led", "--virtual", "off"], 1, "the table of readers has no command for the LEDs"),
        (["led", "--virtual", ACR1255, "pink"], 1, "there is no LED 'pink', there are green, red"),
        (["led", "--virtual", ACR1255, "off", "red"], 2, "`off` goes with no name"),
        (["buzz", "--virtual", ACR1255, "--seconds", "9"], 1, "a tone of 9.0 s is too long"),
        (["buzz", "--virtual", ACR1255, "--seconds", "-1"], 2, "invalid seconds value"),
        (["buzz"], 1, "no CCID reader on USB"),
    ],
)
def test_refusals(run: Run, done: list[object], words: list[str], status: int, error: str) -> None:
    left, out, err = run(*words)
    assert (left, out) == (status, "")
    assert error in err
    assert done == []
