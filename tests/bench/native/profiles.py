"""The times on the bus and in the card, as environments of the stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HIGH_SPEED: Mapping[str, object] = {
    "STANDIN_SPEED": "high",
    "STANDIN_OUT_US": 125,
    "STANDIN_IN_US": 125,
    "STANDIN_RATE": 30,
}
"""One microframe for each transfer, and 30 bytes a microsecond."""

FULL_SPEED: Mapping[str, object] = {
    "STANDIN_SPEED": "full",
    "STANDIN_OUT_US": 1000,
    "STANDIN_IN_US": 1000,
    "STANDIN_RATE": 1,
}
"""One frame for each transfer, and 1 byte a microsecond."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A time on the bus.

    Args:
        name: As options have it.
        title: What takes how long.
        environment: Of the stand-in.
        count: APDUs in a round: about 0.2 s, so that ways that are compared are measured at about
            the same time.
    """

    name: str
    title: str
    environment: Mapping[str, object]
    count: int

    @property
    def is_slow(self) -> bool:
        """64 KiB in small messages take a second."""
        return self.environment.get("STANDIN_SPEED") == "full"


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("0", "the reader answers at once", {}, 1000),
        Profile("hs", "high speed: 125 µs a transfer", HIGH_SPEED, 300),
        Profile("fs", "full speed: 1 ms a transfer", FULL_SPEED, 80),
        Profile(
            "hs+5",
            "high speed, and a card that takes 5 ms",
            {**HIGH_SPEED, "STANDIN_CARD_US": 5000},
            40,
        ),
        Profile(
            "fs+20",
            "full speed, and a card that takes 20 ms",
            {**FULL_SPEED, "STANDIN_CARD_US": 20000},
            15,
        ),
    )
}
