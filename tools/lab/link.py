"""The host's end of the link to the guest's agent: jobs, their output, their results."""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
import time
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lab.errors import LabError

Command = str | Sequence[str | Path]
"""A command line for ``sh -c``, or an argument list."""
Sink = Callable[[int, bytes], object]
"""Receives output: 1 for stdout or 2 for stderr, and the bytes."""

MARGIN_S = 30.0
"""Extra time in s after a command's timeout, for the guest to report that it killed the command."""


@dataclass(frozen=True)
class Result:
    """The result of a command.

    Attributes:
        command: As it was given.
        returncode: Exit code; minus the signal if one ended it; 127 if it could not be started.
        stdout_bytes, stderr_bytes: All it wrote.
        seconds: How long it ran, by the guest's clock.
        timed_out: It was killed because its time was up.
    """

    command: Command
    returncode: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    seconds: float
    timed_out: bool

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode(errors="replace")


class Job:
    """A command in the guest, running or ended. A ``with`` block stops the command at its end.

    Attributes:
        id: Its number.
        command: As it was given.
    """

    def __init__(self, link: Link, number: int, command: Command, sink: Sink | None) -> None:
        self.id = number
        self.command = command
        self._link = link
        self._sink = sink
        self._output = {1: bytearray(), 2: bytearray()}
        self._exit: dict[str, Any] | None = None

    @property
    def stdout(self) -> str:
        """Standard output so far."""
        return bytes(self._output[1]).decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error so far."""
        return bytes(self._output[2]).decode(errors="replace")

    @property
    def running(self) -> bool:
        """Whether the command runs."""
        return self._exit is None

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until the command ends.

        Raises:
            LabError: It did not within ``timeout`` seconds (and still runs), or the guest is gone.
        """
        if not self._link.wait(lambda: self._exit is not None, timeout):
            raise LabError(f"{self.command!r} still runs after {timeout:g} s")
        assert self._exit is not None
        return Result(
            self.command,
            self._exit["returncode"],
            bytes(self._output[1]),
            bytes(self._output[2]),
            self._exit["seconds"],
            self._exit["timed_out"],
        )

    def wait_for(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """Wait until the regular expression ``pattern`` is found in stdout or stderr.

        Raises:
            LabError: It was not within ``timeout`` seconds, or the command ended without it.
        """

        def search() -> re.Match[str] | None:
            return re.search(pattern, self.stdout) or re.search(pattern, self.stderr)

        self._link.wait(lambda: search() is not None or not self.running, timeout)
        found = search()
        if found is None:
            state = f"after {timeout:g} s" if self.running else "before it ended"
            raise LabError(
                f"{self.command!r} did not write {pattern!r} {state}\n{self.stdout}{self.stderr}"
            )
        return found

    def send_signal(self, number: int) -> None:
        """Send a signal to the process group of the command."""
        self._link.send({"do": "signal", "id": self.id, "signal": int(number)})

    def stop(self, grace: float = 5.0) -> Result:
        """End a running command: SIGTERM to its process group, SIGKILL after ``grace`` seconds."""
        if self.running:
            self._link.send({"do": "stop", "id": self.id, "grace": grace})
        return self.wait(grace + MARGIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _on(self, event: dict[str, Any]) -> None:
        if event["event"] == "exit":
            self._exit = event
            return
        data = a2b_base64(event["data"])
        self._output[event["stream"]] += data
        if self._sink is not None:
            self._sink(event["stream"], data)


class Link:
    """Reads the messages of the agent, in a thread of its own.

    Args:
        port: The socket that is the guest's virtio-serial port.
        describe: Says what is known of a guest that went away, for errors.
    """

    def __init__(self, port: socket.socket, describe: Callable[[], str]) -> None:
        self._port = port
        self._describe = describe
        self._numbers = itertools.count(1)
        self._running: dict[int, Job] = {}
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._ready = False
        self._gone = False
        self._thread = threading.Thread(target=self._read, name="lab link", daemon=True)
        self._thread.start()

    @property
    def jobs(self) -> list[Job]:
        """The running jobs."""
        with self._changed:
            return list(self._running.values())

    def wait_ready(self, timeout: float, alive: Callable[[], bool]) -> None:
        """Wait until the agent answers.

        Raises:
            LabError: It did not within ``timeout`` seconds, or QEMU ended.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and alive():
            if self.wait(lambda: self._ready, 0.2):
                return
        state = f"did not boot within {timeout:g} s" if alive() else "ended while it booted"
        raise LabError(f"the guest {state}\n{self._describe()}")

    def start(
        self,
        command: Command,
        *,
        cwd: str,
        env: Mapping[str, str],
        timeout: float | None = None,
        input: bytes | str | None = None,  # noqa: A002 - as subprocess has it
        sink: Sink | None = None,
        script: Mapping[str, Any] | None = None,
    ) -> Job:
        """Start a command, or a ``script``: the members "source", "path" and "preload"."""
        if isinstance(input, str):
            input = input.encode()  # noqa: A001
        argv = ["sh", "-c", command] if isinstance(command, str) else [str(a) for a in command]
        job = Job(self, next(self._numbers), command, sink)
        with self._changed:
            self._running[job.id] = job
        self.send(
            {
                "do": "start",
                "id": job.id,
                "argv": argv,
                **(script or {}),
                "cwd": cwd,
                "env": dict(env),
                "timeout": timeout,
                "input": b2a_base64(input, newline=False).decode() if input else None,
            }
        )
        return job

    def send(self, message: dict[str, Any]) -> None:
        """Write one line."""
        with self._sending:
            try:
                self._port.sendall(json.dumps(message).encode() + b"\n")
            except OSError as error:
                raise LabError(f"the guest is gone: {error}\n{self._describe()}") from error

    def wait(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until ``condition`` holds; False if it does not hold after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._gone, timeout)
            if condition():
                return True
        if self._gone:
            raise LabError(f"the guest is gone\n{self._describe()}")
        return False

    def close(self) -> None:
        """End the thread, and close the port."""
        self._port.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._port.close()

    def _read(self) -> None:
        try:
            with self._port.makefile("rb") as lines:
                for line in lines:
                    event = json.loads(line)
                    with self._changed:
                        self._on(event)
                        self._changed.notify_all()
        except OSError:  # as good as its end
            pass
        finally:
            with self._changed:
                self._gone = True
                self._changed.notify_all()

    def _on(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            self._ready = True
            return
        job = self._running[event["id"]]
        job._on(event)
        if not job.running:
            del self._running[job.id]
