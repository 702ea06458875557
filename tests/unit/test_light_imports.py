"""A part of the package that is used alone loads no part that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ccid.virtual

PURE_PARTS = (
    "ccid.virtual.cards",
    "ccid.iso7816.atr",
    "ccid.iso7816.apdu",
    "ccid.iso7816.t1",
    "ccid.ground.hexadecimal",
)
DRIVER = ("transport", "link", "session", "trace", "masking", "device", "pcsc", "known", "codec")
"""Rooms of the driver, none of which a card or a parser needs."""
USB = ("usb", "libusb_package", "construct")

OPTIONAL = {"asyncio", "cryptography", "PIL", "prompt_toolkit", "pytest", "rich", "smartcard"}
"""What an extra brings, or only those need who ask for it."""
COMMANDS = """\
import contextlib, io, sys, ccid
from ccid.probe.__main__ import main
done = 0
for words in (
    "list --virtual", "dump --virtual", "check --virtual", "card --virtual", "atr 3B00",
    "apdu --virtual 00A4000C023F00", "bench --virtual --count 2", "watch --virtual --timeout 0",
    "readers 08e6:3437", "doctor --virtual", "led --virtual 072f:223f", "buzz --virtual 072f:223f",
    "report --virtual",
):
    with contextlib.redirect_stdout(io.StringIO()):
        done += main(words.split()) == 0
print(done, *sys.modules)
"""

LOADED = """\
import sys
import {module}
print(*sys.modules)
"""


def loaded(module: str) -> set[str]:
    """The modules that a fresh interpreter has after it imported ``module``."""
    run = subprocess.run(
        [sys.executable, "-c", LOADED.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def test_nothing_optional_is_loaded_unasked() -> None:
    run = subprocess.run(
        [sys.executable, "-c", COMMANDS], capture_output=True, text=True, check=True
    )
    done, *names = run.stdout.split()
    assert done == "13"
    assert {"ccid", "ccid.probe.bench_command"} <= set(names)
    assert OPTIONAL & set(names) == set()


@pytest.mark.parametrize("module", PURE_PARTS)
def test_a_pure_part_loads_no_usb_and_no_driver(module: str) -> None:
    names = loaded(module)
    assert module in names
    forbidden = {*USB, *(f"ccid.{room}" for room in DRIVER)}
    assert forbidden & names == set()


def test_a_virtual_reader_loads_the_driver() -> None:
    """So the rooms above are named as they are: the test before could find them."""
    assert {"ccid.link", "ccid.codec"} <= loaded("ccid.virtual.virtual_reader")


def test_public_names_of_virtual_come_when_they_are_used() -> None:
    for name in ccid.virtual.__all__:
        assert getattr(ccid.virtual, name).__name__ == name
    assert set(ccid.virtual.__all__) <= set(dir(ccid.virtual))


def test_a_name_that_virtual_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'ccid\.virtual' has no attribute 'Nothing'"):
        _ = ccid.virtual.Nothing
