"""Ctrl-C at every place where it can come: after each call, and when a function begins or loops.

Python looks for signals there, and nowhere else (``CHECK_EVAL_BREAKER``). What this raises behind a
call comes one instruction later than there; so it raises nothing where a ``with`` begins to leave,
which is beyond what a signal reaches.
"""

from __future__ import annotations

import dis
import itertools
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

LEAVES = {"LOAD_CONST", "SWAP", "COPY", "RETURN_CONST"}
"""First instructions of leaving a ``with``."""


class Interrupting:
    """Raises KeyboardInterrupt at the ``target``-th place, from 0, in code that ``files`` have.

    Attributes:
        struck: It did.
    """

    def __init__(self, target: int, files: tuple[str, ...]) -> None:
        self._left, self._files = target, files
        self.struck = False
        self._places: dict[CodeType, set[int]] = {}

    def _of(self, code: CodeType) -> set[int]:
        """Offsets of, or behind, the instructions at which Python looks for signals."""
        if code not in self._places:
            steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
            pairs = itertools.pairwise(steps)
            self._places[code] = {
                after.offset
                for before, after in pairs
                if before.opname.startswith(("CALL", "RESUME")) and after.opname not in LEAVES
            } | {step.offset for step in steps if step.opname == "JUMP_BACKWARD"}
        return self._places[code]

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(self._files) or self.struck:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_lasti in self._of(frame.f_code):
            self._left -= 1
            if self._left < 0:
                self.struck = True
                raise KeyboardInterrupt
        return self._trace

    def __enter__(self) -> Interrupting:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)


def everywhere(
    do: Callable[[], object], then: Callable[[], object], *files: str, most: int = 5000
) -> int:
    """Call ``do`` again and again, each time with an interrupt one place later, until none is
    left; and ``then`` after each.

    Returns:
        How many places there were.
    """
    for place in range(most):
        with Interrupting(place, files) as interrupting:
            try:
                do()
            except KeyboardInterrupt:
                assert interrupting.struck
        then()
        if not interrupting.struck:
            return place
    raise AssertionError("it does not end")
