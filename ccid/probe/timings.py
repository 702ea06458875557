"""Figures of ``ccid-probe bench``: percentiles, what reader, card and host take, and the comparison
of two runs. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ccid.errors import CcidError
from ccid.ground.safe_text import printable

SCHEMA = "ccid-probe/bench/1"
STATUS, APDU = "GetSlotStatus", "APDU"
"""The two things that are measured."""
HEX = "(?:[0-9A-F]{2})*"
TOLD: dict[str, Any] = {
    "created": str,
    "versions": {"ccid": str, "python": str, "libusb": str | None},
    "system": {"platform": str, "release": str, "machine": str},
    "name": str,
    "id": str,
    "bcdDevice": int,
    "slot": int,
    "atr": HEX,
    "protocol": "T=[01]",
    "exchange": {
        "command": HEX,
        "response": HEX,
        "sw": "[0-9A-F]{4}",
        "meaning": str,
        "masked": bool,
    },
}
"""What a run says beside its figures: the type of each field, or the form of its text. Other fields
of a file are left out when it is printed again."""
MOST_US = 1e12
"""The longest time that a saved run may have."""


class BadRun(CcidError):
    """A file is no saved run of ``ccid-probe bench``."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one thing took, in microseconds.

    Attributes:
        count: How often it was measured.
        min, p25, p50, p75, p90, p99, max: The shortest time, percentiles, the longest time.
        mean: The arithmetic mean.
        cpu: The processor time of this thread, the mean.
    """

    count: int
    min: float
    p25: float
    p50: float
    p75: float
    p90: float
    p99: float
    max: float
    mean: float
    cpu: float


def percentile(ordered: Sequence[float], part: float) -> float:
    """A percentile, between the two nearest values.

    Args:
        ordered: Values from the lowest to the highest; at least one.
        part: 0 for the lowest, 0.5 for the median, 1 for the highest.
    """
    place = part * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def figures(times_s: Sequence[float], cpu_s: float) -> Figures:
    """The figures of some times.

    Args:
        times_s: How long each took, in seconds; at least one.
        cpu_s: Processor time of this thread for all of them, in seconds.
    """
    us = sorted(time * 1e6 for time in times_s)
    parts = (percentile(us, part) for part in (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1))
    mean = sum(us) / len(us)
    rounded = [round(one, 1) for one in (*parts, mean, cpu_s * 1e6 / len(us))]
    return Figures(len(us), *rounded)


def shares(status: Figures, apdu: Figures) -> dict[str, float]:
    """What host, reader and card take of an APDU, in microseconds.

    GetSlotStatus goes to the reader and back, and no further: what it takes beyond the host's
    processor time is the reader's, with its bus. What an APDU takes beyond GetSlotStatus is the
    card's; where an APDU is several messages, the reader's part of the others is in there, too.
    """
    host = min(apdu.cpu, apdu.p50)
    reader = max(status.p50 - min(status.cpu, status.p50), 0.0)
    reader = min(reader, apdu.p50 - host)
    return {
        "host": round(host, 1),
        "reader": round(reader, 1),
        "card": round(apdu.p50 - host - reader, 1),
    }


def compared(before: Mapping[str, Figures], after: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """Two runs side by side, by their medians.

    Where the middle halves of the times overlap, the difference may be chance: it is not clear.
    """
    told = []
    for name in (STATUS, APDU):
        old, new = before[name], after[name]
        ratio = new.p50 / old.p50 if old.p50 else math.inf
        told.append(
            {
                "what": name,
                "before_us": old.p50,
                "after_us": new.p50,
                "ratio": round(ratio, 3) if math.isfinite(ratio) else None,
                "clear": new.p25 > old.p75 or new.p75 < old.p25,
            }
        )
    return told


def read_run(text: str, name: str) -> tuple[dict[str, Any], dict[str, Figures]]:
    """A saved run: the document, and its figures.

    Args:
        text: The content of the file.
        name: Its name, for an error.

    Raises:
        BadRun: It is no run.
    """
    try:
        document = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise BadRun(f"{name}: this is no JSON") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadRun(f"{name}: this is no run that `ccid-probe bench --save` wrote ({SCHEMA})")
    measured = document.get("measured")
    found: dict[str, Figures] = {}
    for what in (STATUS, APDU):
        values = measured.get(what) if isinstance(measured, dict) else None
        if not isinstance(values, dict):
            raise BadRun(f"{name}: measured has no {what}")
        numbers: dict[str, Any] = {}
        for field in fields(Figures):
            value: Any = values.get(field.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value <= MOST_US:
                raise BadRun(
                    f"{name}: {field.name} of {what} is no time: {printable(str(value))[:40]}"
                )
            numbers[field.name] = value
        found[what] = Figures(**numbers)
    told = {field: _fits(document.get(field), shape, name, field) for field, shape in TOLD.items()}
    rest = {"shares_us": shares(found[STATUS], found[APDU]), "compared": None}
    return {"schema": SCHEMA, **told, "measured": as_json(found), **rest}, found


def _fits(value: Any, shape: Any, name: str, where: str) -> Any:
    """``value``, without the fields that ``shape`` does not have.

    Raises:
        BadRun: It is of another kind.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise BadRun(f"{name}: there is no {where}")
        return {key: _fits(value.get(key), one, name, f"{where}.{key}")
                for key, one in shape.items()}  # fmt: skip
    if shape is bool or not isinstance(value, bool):
        if isinstance(shape, str):
            if isinstance(value, str) and re.fullmatch(shape, value):
                return value
        elif isinstance(value, shape) and not (isinstance(value, int) and value < 0):
            return value
    raise BadRun(f"{name}: {where} is not as `ccid-probe bench --save` writes it")


def _finite(text: str) -> float:
    """A number in JSON, which knows neither NaN nor Infinity: what is read is printed again.

    Raises:
        ValueError: It is none.
    """
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no number")
    return value


def as_json(measured: Mapping[str, Figures]) -> dict[str, dict[str, float]]:
    """The figures in a JSON document."""
    return {name: asdict(one) for name, one in measured.items()}
