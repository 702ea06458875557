"""The scenarios for both drivers: the same reader, the same card, the same commands.

A scenario names its reader, makes its card, and lists steps:

    connect [T0|T1]   power up and agree on a protocol; the ATR is part of the result
    HEX               a command APDU
    reset             reset the card
    remove, insert    take the card out, put it back

The results must be equal to those of the reference driver, unless the scenario has a ``fault`` of
the reference driver, with the clause that the reference driver violates. ``wire`` names the
differences on the wire; docs/differences.md has a heading for each name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ccid.codes import ExchangeLevel, Features
from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards import Contact, EchoCard, contact_faults
from ccid.virtual.cards.contact import ContactOptions
from ccid.virtual.cards.pps_card import Pps
from ccid.virtual.cards.t0_card import T0Options
from ccid.virtual.cards.t1_blocks import Check
from ccid.virtual.cards.t1_card import T1Options

BOTH = bytes.fromhex("3B D5 96 00 80 31 FE 45 63 63 69 64 21 65")
"""TA1 = 96; T=0 and T=1; IFSC 254; BWI 4, CWI 5."""


def _atr(t0: str, interface: str, tck: bool) -> bytes:
    """An ATR with these interface bytes and ``ccid!`` as historical bytes."""
    body = bytes.fromhex(t0 + interface) + b"ccid!"
    check = 0
    for byte in body:
        check ^= byte
    return b"\x3b" + body + (bytes((check,)) if tck else b"")


SLOW_T0 = _atr("05", "", tck=False)
"""No interface bytes: T=0 at the default speed."""
FAST_T0 = _atr("15", "96", tck=False)
"""TA1 = 96; T=0 alone."""
SLOW_T1 = _atr("85", "81 31 FE 45", tck=True)
"""T=1 alone at the default speed."""
QUICK_T0 = _atr("85", "40 01", tck=False)
"""WI = 1: a card that does not answer costs 23 s instead of 232 s."""
FAST_T1 = _atr("95", "96 81 31 FE 45", tck=True)
SMALL_T1 = _atr("95", "96 81 31 10 45", tck=True)
"""IFSC 16."""
CRC_T1 = _atr("95", "96 81 71 FE 45 01", tck=True)
SPECIFIC_T1 = _atr("95", "96 91 01 31 FE 45", tck=True)
"""TA2 = 01: T=1 at the speed of TA1; specific mode."""
IMPLICIT_T1 = _atr("95", "96 91 11 31 FE 45", tck=True)
"""TA2 = 11: implicit parameters, which the ATR does not give."""
BEYOND = _atr("15", "18", tck=False)
"""TA1 = 18: 129032 bit/s at 4 MHz."""
TOO_FAST_T1 = _atr("95", "98 81 31 FE 45", tck=True)
"""TA1 = 98."""
BAD_TCK = FAST_T1[:-1] + bytes((FAST_T1[-1] ^ 0xFF,))
NO_TCK = FAST_T1[:-1]
T15_T1 = _atr("95", "96 81 31 FE 45", tck=True)


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


def _levels() -> list[Scenario]:
    """Each level, protocol and case, without errors on the line."""
    return [
        Scenario("TPDU T=0 cases 1 to 3", "tpdu", ("connect T0", *T0_CASES)),
        Scenario("TPDU T=0 GET RESPONSE", "tpdu", ("connect T0", *T0_RESPONSE)),
        Scenario("TPDU T=0 case 4 as it is", "tpdu", ("connect T0", echo(20))),
        Scenario("TPDU T=0, a card of T=0 alone", "tpdu", ("connect", *T0_CASES), FAST_T0),
        Scenario("TPDU T=0 at the default speed", "tpdu", ("connect", *T0_CASES), SLOW_T0),
        Scenario("TPDU T=1 short cases", "tpdu", ("connect T1", *T1_CASES)),
        Scenario("TPDU T=1, both offered, nobody insists", "tpdu", ("connect", CASE1, echo(20))),
        Scenario("TPDU T=1, a card of T=1 alone", "tpdu", ("connect", *T1_CASES), FAST_T1),
        Scenario("TPDU T=1 at the default speed", "tpdu", ("connect", *T1_CASES), SLOW_T1),
        Scenario("TPDU T=1, IFSC 16", "tpdu", ("connect", *T1_CASES), SMALL_T1),
        Scenario(
            "TPDU T=1 extended",
            "tpdu",
            ("connect T1", take(600, True), give(2000, True), echo(3000, True)),
        ),
        Scenario("TPDU T=1, 64 KiB out", "tpdu", ("connect T1", take(65535, True))),
        Scenario("TPDU T=1, 64 KiB in", "tpdu", ("connect T1", give(65000, True))),
        Scenario("automatic TPDU T=0 cases 1 to 3", "tpdu-auto", ("connect T0", *T0_CASES)),
        Scenario("automatic TPDU T=1 short cases", "tpdu-auto", ("connect T1", *T1_CASES)),
        Scenario("automatic TPDU T=1 extended", "tpdu-auto", ("connect T1", echo(1000, True))),
        Scenario("short APDU T=0", "short", ("connect T0", *T1_CASES)),
        Scenario("short APDU T=1", "short", ("connect T1", *T1_CASES)),
        Scenario("short APDU, a long one", "short", ("connect T1", take(600, True), CASE1)),
        Scenario("short APDU, extended and yet short", "short", ("connect T1", give(20, True))),
        Scenario("extended APDU T=0", "extended", ("connect T0", *T1_CASES)),
        Scenario("extended APDU T=1", "extended", ("connect T1", *T1_CASES)),
        Scenario(
            "extended APDU, long ones",
            "extended",
            ("connect T1", take(600, True), give(2000, True), echo(3000, True)),
        ),
        Scenario("extended APDU, 64 KiB out", "extended", ("connect T1", take(65535, True))),
        Scenario("extended APDU, 64 KiB in", "extended", ("connect T1", give(65000, True))),
        Scenario(
            "extended APDU, a block's room exactly",
            "extended",
            (
                "connect T1",
                take(254, True),
                take(255, True),
                give(250, True),
                give(259, True),
                give(261, True),
            ),
        ),
        Scenario(
            "character T=0 cases 1 to 3",
            "character",
            ("connect T0", *T0_CASES),
            wire=("pps-in-two-reads",),
        ),
        Scenario(
            "character T=0 GET RESPONSE",
            "character",
            ("connect T0", *T0_RESPONSE),
            wire=("pps-in-two-reads",),
        ),
        Scenario(
            "character T=1 short cases",
            "character",
            ("connect T1", *T1_CASES),
            wire=("pps-in-two-reads", "ifsd-at-character-level"),
        ),
        Scenario(
            "character T=1 extended",
            "character",
            ("connect T1", echo(1000, True)),
            wire=("pps-in-two-reads", "ifsd-at-character-level"),
        ),
        Scenario(
            "character T=1 at the default speed",
            "character",
            ("connect", *T1_CASES),
            SLOW_T1,
            wire=("ifsd-at-character-level",),
        ),
    ]


def _setup() -> list[Scenario]:
    """ATR, PPS, parameters, IFSD."""
    return [
        Scenario(
            "PPS without PPS1 in the answer",
            "tpdu",
            ("connect T1", CASE1, echo(20)),
            options=ContactOptions(pps=Pps.WITHOUT_PPS1),
        ),
        Scenario(
            "PPS unanswered",
            "tpdu",
            ("connect T1", CASE1),
            options=ContactOptions(pps=Pps.MUTE),
            wire=("slower-after-a-failed-pps",),
        ),
        Scenario("specific mode", "tpdu", ("connect", *T1_CASES), SPECIFIC_T1),
        Scenario("specific mode, T=0 asked for", "tpdu", ("connect T0",), SPECIFIC_T1),
        Scenario("specific mode, implicit parameters", "tpdu", ("connect",), IMPLICIT_T1),
        Scenario("T=0 asked of a card of T=1", "tpdu", ("connect T0",), FAST_T1),
        Scenario("TA1 = 18", "tpdu", ("connect", *T0_CASES), BEYOND),
        Scenario("TA1 = 98", "tpdu", ("connect", CASE1, echo(20)), TOO_FAST_T1),
        Scenario("wrong TCK", "tpdu", ("connect", CASE1, echo(20)), BAD_TCK),
        Scenario(
            "S(IFS) refused",
            "tpdu",
            ("connect", CASE1, echo(20)),
            FAST_T1,
            ContactOptions(t1=T1Options(accepts_ifs=False)),
            fault="ISO/IEC 7816-3:2006 11.4.2: a card that does not take S(IFS request) "
            "goes on with IFSD 32; the reference refuses the card",
        ),
        Scenario(
            "CRC",
            "tpdu",
            ("connect", *T1_CASES),
            CRC_T1,
            ContactOptions(t1=T1Options(check=Check.CRC)),
        ),
        Scenario("reset", "tpdu", ("connect T1", echo(20), "reset", echo(20))),
        Scenario(
            "reset at extended APDU level", "extended", ("connect T1", echo(20), "reset", CASE1)
        ),
        Scenario(
            "out and in between commands",
            "tpdu",
            ("connect T1", CASE1, "remove", "insert", CASE1),
        ),
        Scenario("a mute card", "tpdu", ("connect",), mute=True),
        Scenario("a mute card at extended APDU level", "extended", ("connect",), mute=True),
        Scenario(
            "out between commands",
            "short",
            ("connect T1", CASE1, "remove", CASE1),
        ),
        Scenario(
            "out and in at extended APDU level",
            "extended",
            ("connect T1", CASE1, "remove", "insert", CASE1),
        ),
    ]


def _disturbed() -> list[Scenario]:
    """Waiting times and errors on the line."""
    f = contact_faults
    t1 = ("connect T1", CASE1, echo(20), CASE1)
    return [
        Scenario("T=1 WTX by a slow card", "tpdu", ("connect T1", "00500FA0", CASE1)),
        Scenario("T=1 WTX asked for once", "tpdu", t1, faults=lambda: [f.asks_wtx(3, on="I")]),
        Scenario(
            "T=1 WTX asked for again and again",
            "tpdu",
            t1,
            faults=lambda: [f.asks_wtx(1, on="I", times=5)],
        ),
        Scenario(
            "character T=1 WTX",
            "character",
            t1,
            faults=lambda: [f.asks_wtx(2, on="I")],
            wire=("pps-in-two-reads", "ifsd-at-character-level", "wtx-for-one-block"),
        ),
        Scenario("time extensions at short APDU level", "short", ("connect T1", SLEEP_1S, CASE1)),
        Scenario(
            "time extensions at extended APDU level", "extended", ("connect T1", SLEEP_1S, CASE1)
        ),
        Scenario("T=0 slow card with NULLs", "tpdu", ("connect T0", SLEEP_1S, CASE1)),
        Scenario(
            "character T=0 slow card with NULLs",
            "character",
            ("connect T0", SLEEP_1S, CASE1),
            wire=("pps-in-two-reads",),
        ),
        Scenario(
            "T=1 a block of the card corrupted",
            "tpdu",
            t1,
            faults=lambda: [f.corrupt(on="I", after=1)],
        ),
        Scenario(
            "T=1 parity error once", "tpdu", t1, faults=lambda: [f.parity_error(on="I", after=1)]
        ),
        Scenario(
            "T=1 parity error twice",
            "tpdu",
            t1,
            faults=lambda: [f.parity_error(on="I", after=1, times=2)],
        ),
        Scenario("T=1 wrong N(S)", "tpdu", t1, faults=lambda: [f.wrong_ns(after=1)]),
        Scenario(
            "T=1 the card changes IFSC",
            "tpdu",
            ("connect T1", CASE1, echo(200), echo(200)),
            faults=lambda: [f.asks_ifs(20, on="I")],
        ),
        Scenario(
            "T=1 chain with an R-block corrupted",
            "tpdu",
            ("connect T1", take(600, True), CASE1),
            faults=lambda: [f.corrupt(on="R")],
        ),
        Scenario(
            "T=1 a chain of the card with a block corrupted",
            "tpdu",
            ("connect T1", give(600, True), CASE1),
            faults=lambda: [f.corrupt(on="I", after=1)],
        ),
        Scenario(
            "T=0 byte by byte to the card",
            "tpdu",
            ("connect T0", *T0_CASES),
            options=ContactOptions(t0=T0Options(one_by_one=True)),
        ),
        Scenario(
            "T=0 a wrong procedure byte",
            "tpdu",
            ("connect T0", CASE1, "reset", CASE1),
            faults=lambda: [f.wrong_procedure_byte(0x33)],
        ),
        Scenario(
            "T=1 the card falls silent",
            "tpdu",
            ("connect T1", CASE1, CASE1),
            faults=lambda: [f.silence(after=2, times=None)],
            wire=("r-block-after-silence",),
        ),
        Scenario(
            "T=1 lost answer",
            "tpdu",
            t1,
            faults=lambda: [f.silence(on="I", after=1)],
            fault="ISO/IEC 7816-3:2006 11.6.3.2, rule 7.1: BWT without a block is an error that "
            "an R-block recovers from; the reference gives the card up",
        ),
        Scenario(
            "T=1 three bad answers, whole command sent",
            "tpdu",
            ("connect T1", CASE1, CASE1),
            faults=lambda: [f.corrupt(on="I", times=3)],
            fault="ISO/IEC 7816-3:2006 11.6.3.2: after S(RESYNCH) the reference sends a "
            "command again that the card has carried out: twice executed",
        ),
        Scenario(
            "character T=0 byte by byte from the card",
            "character",
            ("connect T0", give(3)),
            QUICK_T0,
            options=ContactOptions(t0=T0Options(one_by_one=True)),
            fault="ISO/IEC 7816-3:2006 10.3.3: after a byte by ~INS the next procedure byte has "
            "to be fetched; the reference waits for it unasked",
        ),
        Scenario(
            "character T=0 case 4",
            "character",
            ("connect T0", echo(20)),
            fault="ISO/IEC 7816-3:2006 12.2.5: case 4 is carried as case 3; the reference "
            "refuses it",
        ),
        Scenario(
            "character T=1 CRC",
            "character",
            ("connect", *T1_CASES),
            CRC_T1,
            ContactOptions(t1=T1Options(check=Check.CRC)),
            fault="ISO/IEC 7816-3:2006 11.3.4: a CRC is two bytes; the reference fetches one",
        ),
        Scenario(
            "T=1 an answer in the middle of a chain",
            "tpdu",
            ("connect T1", take(600, True), CASE1),
            faults=lambda: [f.wrong_pcb(0x00, on="R")],
            fault="ISO/IEC 7816-3:2006 11.6.2.3, rule 5: only an R-block acknowledges a "
            "block of a chain; the reference takes the I-block for the response and "
            "drops the rest of the command",
        ),
        Scenario(
            "no TCK",
            "tpdu",
            ("connect", CASE1),
            NO_TCK,
            fault="a sloppy card that works: the reference takes the ATR for malformed",
        ),
    ]


SCENARIOS = {s.name: s for s in (*_levels(), *_setup(), *_disturbed())}
