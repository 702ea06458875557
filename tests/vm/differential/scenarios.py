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

from ccid.virtual.cards import contact_faults
from ccid.virtual.cards.contact import ContactOptions
from ccid.virtual.cards.pps_card import Pps
from ccid.virtual.cards.t0_card import T0Options
from ccid.virtual.cards.t1_blocks import Check
from ccid.virtual.cards.t1_card import T1Options
from tests.vm.differential.scenario_parts import (
    BAD_TCK,
    BEYOND,
    CASE1,
    CRC_T1,
    FAST_T0,
    FAST_T1,
    FASTER_SPECIFIC_T1,
    FASTER_T1,
    GUARDED_T0,
    GUARDED_T1,
    IMPLICIT_T1,
    NO_TCK,
    QUICK_T0,
    SLEEP_1S,
    SLOW_T0,
    SLOW_T1,
    SLOWER,
    SMALL_T1,
    SPECIFIC_T1,
    T0_CASES,
    T0_RESPONSE,
    T1_CASES,
    TOO_FAST_T1,
    Scenario,
    echo,
    give,
    take,
)


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
        Scenario(
            "PPS answered with a wrong PCK",
            "tpdu",
            ("connect T1", CASE1),
            options=ContactOptions(pps=Pps.WRONG_PCK),
            wire=("slower-after-a-failed-pps",),
        ),
        Scenario(
            "PPS answered for T=0",
            "tpdu",
            ("connect T1", CASE1),
            options=ContactOptions(pps=Pps.OTHER_PROTOCOL),
            wire=("slower-after-a-failed-pps",),
        ),
        Scenario("specific mode", "tpdu", ("connect", *T1_CASES), SPECIFIC_T1),
        Scenario(
            "specific mode, too fast for the reader",
            "tpdu",
            ("connect", CASE1),
            FASTER_SPECIFIC_T1,
            wire=("specific-mode-beyond-the-reader",),
        ),
        Scenario(
            "TA1 = 31",
            "tpdu",
            ("connect", *T0_CASES),
            SLOWER,
            wire=("slower-than-the-default",),
        ),
        Scenario("TA1 = 97, too fast for the reader", "tpdu", ("connect", *T1_CASES), FASTER_T1),
        Scenario("T=0, TC1 = FF", "tpdu", ("connect", *T0_CASES), GUARDED_T0),
        Scenario("T=1, TC1 = FF", "tpdu", ("connect", *T1_CASES), GUARDED_T1),
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
        Scenario("T=1 WTX with multiplier 0", "tpdu", t1, faults=lambda: [f.asks_wtx(0, on="I")]),
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
            refused=True,
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


def _broken() -> list[Scenario]:
    """Blocks that break the rules of T=1, and what comes after a resynchronisation."""
    f = contact_faults
    t1 = ("connect T1", CASE1, echo(20), CASE1)
    out = ("connect T1", take(600, True), CASE1)
    back = ("connect T1", give(600, True), CASE1)
    return [
        Scenario("T=1 wrong NAD", "tpdu", t1, faults=lambda: [f.wrong_nad(on="I", after=1)]),
        Scenario("T=1 LEN too small", "tpdu", t1, faults=lambda: [f.wrong_len(-1, "I", after=1)]),
        Scenario("T=1 a block twice", "tpdu", t1, faults=lambda: [f.doubled(on="I", after=1)]),
        Scenario(
            "T=1 characters behind a block",
            "tpdu",
            t1,
            faults=lambda: [f.followed_by(b"\x55\xaa", on="I", after=1)],
        ),
        Scenario("T=1 wrong N(R) in a chain", "tpdu", out, faults=lambda: [f.wrong_nr()]),
        Scenario(
            "T=1 the card announces IFSC 16",
            "tpdu",
            ("connect T1", echo(100), echo(100)),
            options=ContactOptions(t1=T1Options(announces_ifsc=16)),
        ),
        Scenario(
            "T=0 300 NULLs", "tpdu", ("connect T0", CASE1, CASE1), faults=lambda: [f.nulls(300)]
        ),
        Scenario(
            "T=1 an S-block of no kind",
            "tpdu",
            t1,
            faults=lambda: [f.wrong_pcb(0xC4, on="I", after=1)],
            wire=("r-block-after-an-s-block-of-no-kind",),
        ),
        Scenario(
            "T=1 a block cut short",
            "tpdu",
            t1,
            faults=lambda: [f.cut_short(4, on="I", after=1)],
            fault="ISO/IEC 7816-3:2006 11.6.3.2, rule 7.1: an R-block recovers from an "
            "incomplete block; the reference gives the card up",
        ),
        Scenario(
            "T=1 lost R-block in a chain",
            "tpdu",
            out,
            faults=lambda: [f.silence(on="R")],
            fault="ISO/IEC 7816-3:2006 11.6.3.2, rule 7.1: BWT without a block is an error that "
            "an R-block recovers from; the reference gives the card up",
        ),
        Scenario(
            "T=1 three bad R-blocks, nothing acknowledged",
            "tpdu",
            out,
            faults=lambda: [f.corrupt(on="R", times=3)],
        ),
        Scenario(
            "T=1 three bad R-blocks in the middle of a command",
            "tpdu",
            out,
            faults=lambda: [f.corrupt(on="R", after=1, times=3)],
            fault="ISO/IEC 7816-3:2006 11.6.2.3, rule 6: S(RESYNCH) sets both sides back to the "
            "beginning; the reference sends the rest of the command as a command",
        ),
        Scenario(
            "T=1 three bad answers in the middle of a response",
            "tpdu",
            back,
            faults=lambda: [f.corrupt(on="I", after=1, times=3)],
            fault="ISO/IEC 7816-3:2006 11.6.2.3, rule 6: S(RESYNCH) sets both sides back to the "
            "beginning; the reference sends an empty I-block and takes the answer for the response",
            refused=True,
        ),
        Scenario(
            "T=1 the card asks for IFSC 255",
            "tpdu",
            t1,
            faults=lambda: [f.asks_ifs(255, on="I")],
            fault="ISO/IEC 7816-3:2006 11.4.2: 255 is reserved; the reference up to 1.5.2 takes "
            "it, later it sends S(RESYNCH) and then a command that the card has carried out: "
            "twice executed",
            refused=True,
        ),
        Scenario(
            "T=1 the card asks for IFSC 0",
            "tpdu",
            t1,
            faults=lambda: [f.asks_ifs(0, on="I")],
            fault="ISO/IEC 7816-3:2006 11.6.3.2, rule 7.1: an invalid block is answered by an "
            "R-block; the reference sends S(RESYNCH) and then a command that the card has carried "
            "out: twice executed",
            refused=True,
        ),
        Scenario(
            "T=1 the card asks for a resynchronisation",
            "tpdu",
            t1,
            faults=lambda: [f.asks_resynch(on="I")],
            fault="ISO/IEC 7816-3:2006 11.6.2.3, rule 6: only the interface device sends "
            "S(RESYNCH request); the reference obeys, and sends a command that the card has "
            "carried out: twice executed",
            refused=True,
        ),
        Scenario(
            "T=1 the card ends our chain",
            "tpdu",
            out,
            faults=lambda: [f.aborts(on="R")],
            fault="ISO/IEC 7816-3:2006 11.6.2.3, rule 9: S(ABORT) ends a chain; the reference "
            "sends the rest of the command nevertheless, and takes the answer for the response",
            refused=True,
        ),
        Scenario(
            "T=1 the card ends its own chain",
            "tpdu",
            back,
            faults=lambda: [f.aborts(on="I", after=1)],
            fault="ISO/IEC 7816-3:2006 11.6.2.3, rule 9: S(ABORT) ends a chain; the reference "
            "goes on asking, and in the end takes the answer to an empty I-block for the response",
            refused=True,
        ),
    ]


SCENARIOS = {s.name: s for s in (*_levels(), *_setup(), *_disturbed(), *_broken())}
