"""Waiting times, compared with values computed by hand from ISO/IEC 7816-3:2006."""

from __future__ import annotations

import pytest

from ccid.codes import Protocol
from ccid.iso7816.atr import Atr
from ccid.iso7816.timing import FLOOR_S, UNKNOWN_S, Timing, exchange_timeout

T0_ONLY = "3B00"
T1_4D = "3B808100" + "01"
T1_45 = "3B8081 2145".replace(" ", "") + "E5"


def timing(atr: str, clock_hz: int = 4_000_000, fidi: int = 0x11) -> Timing | None:
    return Timing.of(Atr.parse(bytes.fromhex(atr)), clock_hz, fidi)


def test_elementary_time_unit() -> None:
    t = timing(T0_ONLY)
    assert t is not None
    assert t.etu_s == pytest.approx(372 / 4e6)
    assert t.guard_t0_s == pytest.approx(12 * 372 / 4e6)


def test_work_waiting_time_does_not_depend_on_di() -> None:
    """WWT = WI × 960 × Fi / f (10.2)."""
    slow, fast = timing(T0_ONLY), timing(T0_ONLY, fidi=0x18)
    assert slow is not None
    assert fast is not None
    assert slow.wwt_s == fast.wwt_s == pytest.approx(10 * 960 * 372 / 4e6)


def test_block_and_character_waiting_times() -> None:
    """BWT = 11 etu + 2^BWI × 960 × Fd / f, CWT = (11 + 2^CWI) etu (11.4.3)."""
    t = timing(T1_4D, fidi=0x95)
    assert t is not None
    etu = 512 / 16 / 4e6
    assert t.bwt_s == pytest.approx(11 * etu + 16 * 960 * 372 / 4e6)
    assert t.cwt_s == pytest.approx((11 + 2**13) * etu)


def test_reserved_bwi_is_capped() -> None:
    t = timing("3B8081 21F5".replace(" ", "") + "55")
    assert t is not None
    assert t.bwt_s < 2**10 * 960 * 372 / 4e6


def test_255_is_the_minimum_guard_time() -> None:
    with_255, without = timing("3B40FF"), timing(T0_ONLY)
    assert with_255 is not None
    assert without is not None
    assert with_255.guard_t0_s == without.guard_t0_s
    assert with_255.guard_t1_s == pytest.approx(11 * 372 / 4e6)


def test_with_t15_the_extra_guard_time_counts_what_ta1_indicates() -> None:
    """R is F/D in force; with T=15 in the ATR, R is F/D of TA1 (8.3)."""
    t = timing("3B D0 18 0A 1F C7".replace(" ", ""), fidi=0x11)
    assert t is not None
    assert t.guard_t0_s == pytest.approx((12 * 372 + 10 * 372 / 12) / 4e6)


@pytest.mark.parametrize(
    ("fidi", "seconds"),
    [(0x11, 232.133), (0x13, 232.129), (0x18, 232.128), (0x94, 319.488), (0x97, 319.488)],
)
def test_t0_timeouts(fidi: int, seconds: float) -> None:
    """As the reference driver computes, in whole milliseconds."""
    assert exchange_timeout(timing(T0_ONLY, fidi=fidi), Protocol.T0) == pytest.approx(
        seconds, abs=0.002
    )


@pytest.mark.parametrize(
    ("atr", "fidi", "seconds"),
    [
        (T1_4D, 0x11, 201.067),
        (T1_4D, 0x13, 52.087),
        (T1_4D, 0x18, 18.981),
        (T1_4D, 0x97, 6.699),
        (T1_45, 0x11, 3.758),
        (T1_45, 0x97, FLOOR_S),
    ],
)
def test_t1_timeouts(atr: str, fidi: int, seconds: float) -> None:
    """As the reference driver computes, but never below the lower limit."""
    assert exchange_timeout(timing(atr, fidi=fidi), Protocol.T1) == pytest.approx(
        seconds, abs=0.003
    )


def test_a_faster_clock_shortens_all() -> None:
    slow, fast = timing(T0_ONLY), timing(T0_ONLY, 8_000_000)
    assert exchange_timeout(slow, Protocol.T0) == pytest.approx(
        2 * exchange_timeout(fast, Protocol.T0)
    )


@pytest.mark.parametrize(("clock", "fidi"), [(0, 0x11), (4_000_000, 0x71), (4_000_000, 0x1A)])
def test_what_says_nothing_gets_a_minute(clock: int, fidi: int) -> None:
    assert timing(T0_ONLY, clock, fidi) is None
    assert exchange_timeout(None, Protocol.T0) == UNKNOWN_S
