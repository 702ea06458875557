"""Signals that come wherever Python runs their handlers, one place after the other."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import ccid

HOME = Path(ccid.__file__).parent


@cache
def jumps(code: CodeType) -> frozenset[int]:
    """Where a loop begins anew."""
    steps = dis.get_instructions(code)
    return frozenset(step.offset for step in steps if "JUMP_BACKWARD" in step.opname)


@cache
def start(code: CodeType) -> int:
    """Where a function begins; a generator that goes on does so elsewhere."""
    return next(step.offset for step in dis.get_instructions(code) if step.opname == "RESUME")


class Interrupted(KeyboardInterrupt):
    """What the handler raises."""


class Interrupter:
    """Raises at one of the places where Python runs the handlers of signals: when a function
    begins, when a call of C is over, and when a loop begins anew. Nowhere else: neither between an
    ``__enter__`` in C and what ``with`` protects, nor between the end of that and an ``__exit__``
    in C. What the handler raises after a call counts as raised by the call.

    Args:
        files: Those of this package where it raises.
        at: At which such place, from 0.
    """

    def __init__(self, files: tuple[str, ...], at: int) -> None:
        self._names = {str(HOME / file) for file in files}
        assert all(Path(name).is_file() for name in self._names), files
        self._left = at

    @property
    def is_over(self) -> bool:
        """It has raised."""
        return self._left < 0

    def _here(self, frame: FrameType) -> None:
        if frame.f_code.co_filename not in self._names or self.is_over:
            return
        self._left -= 1
        if self.is_over:
            raise Interrupted

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        begins = event == "call" and frame.f_lasti <= start(frame.f_code)
        if begins or event == "c_return":
            self._here(frame)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._names:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_lasti in jumps(frame.f_code):
            self._here(frame)
        return self._trace

    def run(self, work: Callable[[], object]) -> None:
        """Do ``work``."""
        before = sys.gettrace(), sys.getprofile()
        try:
            sys.settrace(self._trace)
            sys.setprofile(self._profile)
            work()
        finally:
            sys.setprofile(before[1])
            sys.settrace(before[0])


def interrupted(work: Callable[[], object], files: tuple[str, ...]) -> Iterator[Interrupted | None]:
    """Do ``work`` again and again, interrupted at the first, second, … such place; None at last,
    when there was no more place, and it was done to its end."""
    for at in range(100_000):
        one = Interrupter(files, at)
        try:
            one.run(work)
        except Interrupted as error:
            yield error
        if not one.is_over:
            yield None
            return
