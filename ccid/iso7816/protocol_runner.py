"""Driving the protocol machines of this package, which know neither input nor output."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

Step = TypeVar("Step")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


def run(machine: Generator[Step, Answer, Result], link: Callable[[Step], Answer]) -> Result:
    """Drive a machine over a link that sends a step and returns the card's answer.

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
