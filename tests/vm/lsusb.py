"""The descriptors in the output of ``lsusb -v``, as numbers by the names of the specification."""

from __future__ import annotations

import re
from typing import Any

NAMES = {
    "iSerial": "iSerialNumber",
    "MaxPower": "bMaxPower",
    "nMaxSlotIndex": "bMaxSlotIndex",
    "dwMaxiumumClock": "dwMaximumClock",
    "bNumDataRatesSupp.": "bNumDataRatesSupported",
    "dwSyncProtocols": "dwSynchProtocols",
    "dwMaxCCIDMsgLen": "dwMaxCCIDMessageLength",
    "wlcdLayout": "wLcdLayout",
}
"""Fields with another spelling in lsusb."""
HEXADECIMAL = {"dwSynchProtocols", "dwMechanical", "dwFeatures"}
"""Fields that lsusb prints in hexadecimal without a prefix."""
BCD = {"bcdUSB", "bcdDevice", "bcdCCID"}
WORDS = {"none": 0, "echo": 0xFF}

SECTIONS = {
    "Device Descriptor": "device",
    "Configuration Descriptor": "configuration",
    "Interface Descriptor": "interface",
    "ChipCard Interface Descriptor": "smart_card",
    "Endpoint Descriptor": "endpoints",
}


def parse(text: str) -> dict[str, Any]:
    """The descriptors, and the strings, of the one device in ``text``."""
    found: dict[str, Any] = {"endpoints": [], "strings": {}}
    section: dict[str, int] = {}
    for line in text.splitlines():
        heading = line.strip().rstrip(":")
        if heading in SECTIONS:
            section = {}
            name = SECTIONS[heading]
            if name == "endpoints":
                found["endpoints"].append(section)
            else:
                found[name] = section
            continue
        match = re.match(r"\s+((?:b|w|i|d|n|bm|MaxP)[A-Za-z][\w.]*)\s+(\S+)\s*(.*)", line)
        if match:
            _field(section, found["strings"], *match.groups())
    return found


def _field(
    section: dict[str, int], strings: dict[str, str], name: str, word: str, rest: str
) -> None:
    name = NAMES.get(name, name)
    if name in section:
        return
    if name in BCD:
        major, minor = word.split(".")
        section[name] = int(major, 16) << 8 | int(minor, 16)
    elif name == "bMaxPower":
        section[name] = int(word.removesuffix("mA")) // 2
    elif word in WORDS:
        section[name] = WORDS[word]
    elif name in HEXADECIMAL:
        section[name] = int(word, 16)
    else:
        section[name] = int(word, 0)
    if name[0] == "i" and name[1].isupper() and section[name] and not name.startswith("id"):
        strings[name] = rest.strip()
