"""What the scenarios of the differential test are made of: readers, ATRs, commands, and the class
:class:`Scenario`. The scenarios are in :mod:`tests.vm.differential.scenarios`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ccid.codes import ExchangeLevel, Features
from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards import Contact, EchoCard, contact_faults
from ccid.virtual.cards.contact import ContactOptions

BOTH = bytes.fromhex("3B D5 96 00 80 31 FE 45 63 63 69 64 21 65")
"""TA1 = 96; T=0 and T=1; IFSC 254; BWI 4, CWI 5."""


def atr_of(t0: str, interface: str, tck: bool) -> bytes:
    """An ATR with these interface bytes and ``ccid!`` as historical bytes."""
    body = bytes.fromhex(t0 + interface) + b"ccid!"
    check = 0
    for byte in body:
        check ^= byte
    return b"\x3b" + body + (bytes((check,)) if tck else b"")


SLOW_T0 = atr_of("05", "", tck=False)
"""No interface bytes: T=0 at the default speed."""
FAST_T0 = atr_of("15", "96", tck=False)
"""TA1 = 96; T=0 alone."""
SLOW_T1 = atr_of("85", "81 31 FE 45", tck=True)
"""T=1 alone at the default speed."""
QUICK_T0 = atr_of("85", "40 01", tck=False)
"""WI = 1: a card that does not answer costs 23 s instead of 232 s."""
FAST_T1 = atr_of("95", "96 81 31 FE 45", tck=True)
SMALL_T1 = atr_of("95", "96 81 31 10 45", tck=True)
"""IFSC 16."""
CRC_T1 = atr_of("95", "96 81 71 FE 45 01", tck=True)
SPECIFIC_T1 = atr_of("95", "96 91 01 31 FE 45", tck=True)
"""TA2 = 01: T=1 at the speed of TA1; specific mode."""
IMPLICIT_T1 = atr_of("95", "96 91 11 31 FE 45", tck=True)
"""TA2 = 11: implicit parameters, which the ATR does not give."""
BEYOND = atr_of("15", "18", tck=False)
"""TA1 = 18: 129032 bit/s at 4 MHz."""
SLOWER = atr_of("15", "31", tck=False)
"""TA1 = 31: F = 744 and D = 1, half the default speed."""
FASTER_T1 = atr_of("95", "97 81 31 FE 45", tck=True)
"""TA1 = 97: 500000 bit/s at 4 MHz."""
FASTER_SPECIFIC_T1 = atr_of("95", "97 91 01 31 FE 45", tck=True)
"""TA1 = 97, TA2 = 01: this speed and no other."""
GUARDED_T0 = atr_of("45", "FF", tck=False)
GUARDED_T1 = atr_of("C5", "FF 81 31 FE 45", tck=True)
"""TC1 = FF: the shortest guard time."""
TOO_FAST_T1 = atr_of("95", "98 81 31 FE 45", tck=True)
"""TA1 = 98."""
BAD_TCK = FAST_T1[:-1] + bytes((FAST_T1[-1] ^ 0xFF,))
NO_TCK = FAST_T1[:-1]
T15_T1 = atr_of("95", "96 81 31 FE 45", tck=True)


@dataclass(frozen=True)
class ReaderModel:
    """A reader for scenarios.

    Attributes:
        vendor_id, product_id: Of a reader that the reference driver has no exceptions for.
        name: The name in the table of the reference driver.
        level: Level of exchange.
        fields: Fields of the class descriptor.
    """

    vendor_id: int
    product_id: int
    name: str
    level: ExchangeLevel
    fields: dict[str, Any] = field(default_factory=dict)


MANUAL = Features.AUTO_VOLTAGE | Features.AUTO_CLOCK | Features.AUTO_BAUD_RATE

READERS = {
    "tpdu": ReaderModel(
        0x096E,
        0x0503,
        "Feitian SCR301",
        ExchangeLevel.TPDU,
        {"dwFeatures": MANUAL | ExchangeLevel.TPDU, "dwMaxDataRate": 250000},
    ),
    "tpdu-auto": ReaderModel(0x04E6, 0x5116, "SCM Microsystems Inc. SCR 3310", ExchangeLevel.TPDU),
    "short": ReaderModel(0x072F, 0x90CC, "ACS ACR 38U-CCID", ExchangeLevel.SHORT_APDU),
    "extended": ReaderModel(
        0x072F,
        0xB100,
        "ACS ACR39U ICC Reader",
        ExchangeLevel.EXTENDED_APDU,
        {"dwMaxCCIDMessageLength": 271},
    ),
    "character": ReaderModel(
        0x0CA6, 0x00A0, "CASTLES EZCCID Smart Card Reader", ExchangeLevel.CHARACTER
    ),
}

Faults = list[contact_faults.ContactFault]


@dataclass(frozen=True)
class Scenario:
    """One scenario; see the module.

    Attributes:
        name: The name in tables.
        reader: Key of :data:`READERS`.
        steps: The steps, in order.
        atr: The ATR of the card.
        options: The behaviour of the card.
        faults: Makes the faults of the card; called for each run.
        fault: The fault of the reference driver here, with its clause; empty for none.
        refused: Our reply is an error, on purpose: there is no reply of the card that is right.
        wire: Names of differences on the wire.
        mute: The card does not answer a power-on.
    """

    name: str
    reader: str
    steps: tuple[str, ...]
    atr: bytes = BOTH
    options: ContactOptions = field(default_factory=ContactOptions)
    faults: Callable[[], Faults] = list
    fault: str = ""
    refused: bool = False
    wire: tuple[str, ...] = ()
    mute: bool = False

    def card(self) -> Contact:
        """The card."""
        contact = Contact(EchoCard(self.atr), self.options)
        contact.faults += self.faults()
        return contact


def echo(size: int, extended: bool = False) -> str:
    """Case 4: a command APDU whose ``size`` bytes of data the card returns."""
    data = bytes((i * 7 + size) & 0xFF for i in range(size))
    ne = 65536 if extended else 256
    return CommandApdu(0, 0x30, data=data, ne=ne, extended=extended).build().hex()


def give(count: int, extended: bool = False) -> str:
    """Case 2: a command APDU to which the card returns ``count`` bytes."""
    return CommandApdu(0, 0x10, p1=7, ne=count, extended=extended).build().hex()


def take(size: int, extended: bool = False) -> str:
    """Case 3: a command APDU with ``size`` bytes of data; the response has only status words."""
    return CommandApdu(0, 0x20, data=bytes(size), extended=extended).build().hex()


CASE1 = "00400000"
WRONG = "00FF0000"
SLEEP_1S = "005003E8"
SHORT_CASES = (
    CASE1,
    give(1),
    give(52),
    give(256),
    take(1),
    take(255),
    echo(1),
    echo(52),
    echo(255),
)
T1_CASES = (*SHORT_CASES, WRONG, "00526A82")
T0_CASES = (CASE1, give(1), give(250), give(256), take(1), take(255), WRONG, "00526A82")
T0_RESPONSE = (echo(20)[:-2], "00C0000014", echo(20)[:-2], "00C0000030", "00C0000014")
"""Case 4 with T=0: without Le, then GET RESPONSE; once with a wrong Le."""
