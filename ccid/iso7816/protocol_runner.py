"""Driving a protocol machine of :mod:`~ccid.iso7816.t0` or :mod:`~ccid.iso7816.t1` over a link.

A machine is a generator: it yields what to send, and receives the answer of the card.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

Step = TypeVar("Step")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


def run(machine: Generator[Step, Answer, Result], link: Callable[[Step], Answer]) -> Result:
    """Drive a machine to its end.

    Args:
        machine: The machine. It is closed at the end, also after an error.
        link: Sends a step of the machine to the card and returns the answer.

    Returns:
        The result of the machine.

    Raises:
        What the machine or the link raises.
    """
    try:
        step = next(machine)
        while True:
            step = machine.send(link(step))
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        machine.close()
