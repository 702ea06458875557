"""The transport of a reader that sends stray empty packets: they are fetched before each command.

Only a reader with the quirk ``drain-before-write-s`` gets this wrapper around its transport.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ccid.codec.descriptors import ClassControl
from ccid.errors import CcidError, TransportStall, TransportTimeout
from ccid.transport import ReaderInfo, Returns, Transport
from ccid.transport.separate_transfers import SeparateTransfers


class Draining(SeparateTransfers):
    """A transport that does what ``inner`` does, and fetches an empty bulk-IN transfer before
    every bulk-OUT transfer.

    Args:
        inner: The transport itself.
        patience_s: Seconds to wait for the empty packet.
    """

    def __init__(self, inner: Transport, patience_s: float) -> None:
        self.inner = inner
        self.timeout_ms = max(1, int(patience_s * 1000))
        self.out, self.inp, self.packet_size = inner.out, inner.inp, inner.packet_size

    @property
    def dead(self) -> CcidError | None:
        """The reason why the transport has ended; None before."""
        return self.inner.dead

    def send(self, length: int, timeout_ms: int, /) -> None:
        with suppress(TransportTimeout, TransportStall):
            self.inner.receive(0, 0, self.timeout_ms)
        self.inner.send(length, timeout_ms)

    def wait(self, size: int, wait_ms: int, /) -> int:
        return self.inner.wait(size, wait_ms)

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        return self.inner.receive(offset, size, timeout_ms)

    def listen(self, tell: Callable[[bytes], None]) -> None:
        self.inner.listen(tell)

    def take_events(self, wait_ms: int = 0, /) -> None:
        self.inner.take_events(wait_ms)

    def attend(self) -> Callable[[], None]:
        return self.inner.attend()

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
        return self.inner.control(request, timeout_ms, data)

    def close(self) -> None:
        self.inner.close()

    def when_dead(self, tell: Callable[[CcidError], None]) -> None:
        self.inner.when_dead(tell)

    def on_reset(self, tell: Callable[[ReaderInfo], None], returns: Returns | None = None) -> None:
        self.inner.on_reset(tell, returns)

    def is_away(self) -> bool:
        return self.inner.is_away()
