"""Our list of readers covers Debian's list of libccid, which is older."""

from __future__ import annotations

import plistlib
from pathlib import Path

from ccid.known.quirks import known_readers

BUNDLE = Path("/usr/lib/pcsc/drivers/ifd-ccid.bundle/Contents/Info.plist")


def listed() -> set[str]:
    """The readers that libccid opens, as ``vvvv:pppp``."""
    if not BUNDLE.is_file():
        raise AssertionError(f"{BUNDLE} is not there; get it with: sudo apt-get install libccid")
    content = plistlib.loads(BUNDLE.read_bytes())
    pairs = zip(content["ifdVendorID"], content["ifdProductID"], strict=True)
    return {f"{int(vendor, 16):04x}:{int(product, 16):04x}" for vendor, product in pairs}


def test_every_reader_that_libccid_opens_is_in_the_table() -> None:
    ours = {known.id for known in known_readers() if known.quirks.status != "disabled"}
    theirs = listed()
    assert len(theirs) > 400
    assert sorted(theirs - ours) == []
