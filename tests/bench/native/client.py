"""A loop that runs: it is asked for rounds, and checks what comes back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .counters import Counters, Counts
from .processes import cpu_seconds

END_S = 5.0


class WrongAnswerError(Exception):
    """A way gave a response that the card did not send, or the card saw another number of APDUs."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of a loop took.

    Args:
        count: APDUs in the round.
        wall: Seconds.
        p50, p99: Microseconds an APDU; 0 where a loop has several readers.
        client_cpu: CPU time of the loop, seconds.
        other_cpu: CPU time of pcscd and its helpers, seconds.
        counted: By the stand-in.
    """

    count: int
    wall: float
    p50: float
    p99: float
    client_cpu: float
    other_cpu: float
    counted: Counts

    @property
    def rate(self) -> float:
        """APDUs a second."""
        return self.count / self.wall

    @property
    def cpu_us(self) -> float:
        """CPU time of all processes for one APDU, microseconds."""
        return (self.client_cpu + self.other_cpu) / self.count * 1e6


class Client:
    """A loop.

    Args:
        command: The program and its words.
        environment: Its environment, the stand-in's among it.
        counters: That the stand-in counts into.
        replies: Each response has to be one of these.
        readers: How many the loop uses at once.
        daemons: Process numbers of pcscd and its helpers.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        counters: Counters,
        replies: Collection[bytes],
        readers: int = 1,
        daemons: Sequence[int] = (),
    ) -> None:
        self._command = command
        self.counters = counters
        self._replies = replies
        self._readers = readers
        self.daemons = daemons
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.answer()

    @property
    def pid(self) -> int:
        """Of the loop itself: taskset and nsenter have become the loop."""
        return self._process.pid

    def start(self, count: int) -> None:
        """Ask for a round."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"run {count}\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for what the loop says.

        Raises:
            WrongAnswerError: The loop ended, or a response was not as the card sent it.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise WrongAnswerError(f"{' '.join(self._command)} ended with status {code}")
        said: dict[str, Any] = json.loads(line)
        reply = bytes.fromhex(said.get("reply", ""))
        if "reply" in said and reply not in self._replies:
            raise WrongAnswerError(
                f"{' '.join(self._command)}: a response of {len(reply)} bytes, "
                f"{reply[:8].hex()}…{reply[-4:].hex()}, is none that the card sent"
            )
        return said

    def run(self, count: int) -> Round:
        """One round.

        Raises:
            WrongAnswerError: As ``answer``, or the card saw another number of APDUs.
        """
        cpu, counted = cpu_seconds(self.daemons), self.counters.now()
        self.start(count)
        said = self.answer()
        cpu = cpu_seconds(self.daemons) - cpu
        counted = self.counters.now().since(counted)
        count *= self._readers
        if counted.apdus != count:
            raise WrongAnswerError(
                f"{' '.join(self._command)}: the card saw {counted.apdus} APDUs of {count}"
            )
        return Round(count, said["wall"], said["p50"], said["p99"], said["cpu"], cpu, counted)

    def end(self) -> None:
        """End the loop and wait for that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
