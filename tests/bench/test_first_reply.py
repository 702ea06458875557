"""How soon a reader that was plugged in answers: from pcscd's call that opens the channel to the
first presence query and the ATR. Goal: at most 250 ms to the first reply.

What lies before that call, the kernel's enumeration and pcscd's look at it, is not the driver's.
The reader is in the helper's process, so what is measured is the helper: process, imports, opening.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from ccid.pcsc.ifd import Action, Code
from tests.conftest import Tell
from tests.integration.plug import Plug, build

GOAL_MS = 250.0


@pytest.mark.parametrize("device", ["virtual:", "virtual:08e6:3437"])
def test_first_reply(
    device: str,
    tmp_path: Path,
    full: bool,
    benchmark: Any,
    tell: Tell,
) -> None:
    plug = Plug(build(tmp_path))
    steps: dict[str, list[float]] = {"channel": [], "presence": [], "ATR": []}

    def until_the_atr() -> None:
        began = time.perf_counter()

        def mark(step: str) -> None:
            steps[step].append((time.perf_counter() - began) * 1000)

        assert plug.create(0, device) == Code.SUCCESS
        mark("channel")
        assert plug.presence(0) == Code.ICC_PRESENT
        mark("presence")
        code, atr = plug.power(0, Action.POWER_UP)
        assert code == Code.SUCCESS
        assert atr
        mark("ATR")

    def end() -> None:
        plug.close(0)

    rounds = 20 if full else 5
    benchmark.pedantic(until_the_atr, teardown=end, rounds=rounds, warmup_rounds=1)
    lines = [f"from the call that opens {device} to the end of each step, ms: median, longest"]
    for step, took in steps.items():
        took = took[1:]  # the first round warms up
        benchmark.extra_info[step] = statistics.median(took)
        lines.append(f"  {step:10} {statistics.median(took):6.1f} {max(took):6.1f}")
    tell("\n".join(lines) + f"\n  goal for the presence: {GOAL_MS:.0f}")
