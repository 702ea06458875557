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
