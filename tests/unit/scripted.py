"""A transport that plays a script, for tests of the layers above."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ccid.codec.descriptors import ClassControl
from ccid.codec.messages import Command, Reply, parse_command
from ccid.errors import TransportError, TransportTimeout
from ccid.transport import IN_CAPACITY, OUT_CAPACITY, nothing_to_end
from ccid.transport.lifetime import Life
from ccid.transport.separate_transfers import SeparateTransfers

Answer = bytes | Exception | Sequence[bytes | Exception] | None


class ScriptedTransport(SeparateTransfers, Life):
    """Records commands, and answers each by ``answer``.

    Args:
        answer: Called with a command; returns a transfer, several, an error, or None for silence.
        packet_size: wMaxPacketSize of bulk-IN, in bytes.
    """

    def __init__(self, answer: Callable[[Command], Answer], packet_size: int = 64) -> None:
        super().__init__("script")
        self.out = memoryview(bytearray(OUT_CAPACITY))
        self.inp = memoryview(bytearray(IN_CAPACITY))
        self.packet_size = packet_size
        self.answer = answer
        self.commands: list[Command] = []
        self.controls: list[ClassControl] = []
        self.control_ms: list[int] = []
        """How long each control transfer might take."""
        self.on_control: Callable[[ClassControl], bytes] = lambda request: b""
        self.pending: list[bytes | Exception] = []
        self.reads: list[tuple[int, int]] = []
        self.events: list[bytes] = []
        """The notifications that came."""
        self.idle: Callable[[], None] = lambda: None
        self.paced = True
        """True to take the given time before a time-out; False to time out at once."""

    def send(self, length: int, timeout_ms: int, /) -> None:
        self.check()
        command = parse_command(bytes(self.out[:length]))
        self.commands.append(command)
        answer = self.answer(command)
        if answer is not None:
            self.pending += [answer] if isinstance(answer, bytes | Exception) else answer

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        self.check()
        self.reads.append((offset, size))
        if not self.pending:
            if self.paced:
                time.sleep(timeout_ms / 1000)
            self.idle()
            raise TransportTimeout("script: nothing comes")
        transfer = self.pending.pop(0)
        if isinstance(transfer, Exception):
            raise transfer
        part, rest = transfer[:size], transfer[size:]
        if rest:
            self.pending.insert(0, rest)
        self.inp[offset : offset + len(part)] = part
        return len(part)

    def listen(self, tell: Callable[[bytes], None]) -> None:
        self.tell = tell

    def take_events(self, wait_ms: int = 0, /) -> None:
        while self.events:
            self.tell(self.events.pop(0))

    def attend(self) -> Callable[[], None]:
        return nothing_to_end

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
        self.check()
        self.controls.append(request)
        self.control_ms.append(timeout_ms)
        return self.on_control(request)

    def close(self) -> None:
        self.closed()


def reply(command: Command, cls: type[Reply], **fields: Any) -> bytes:
    """A reply of this type to ``command``."""
    return cls(**({"bSlot": command.bSlot, "bSeq": command.bSeq} | fields)).build()


def broken(text: str = "script: broken") -> TransportError:
    """A transfer that fails."""
    return TransportError(text)
