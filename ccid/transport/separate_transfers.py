"""A command and its reply one after the other: for transports that cannot have both at once."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ccid.errors import TransportTimeout


class SeparateTransfers(ABC):
    """Makes :meth:`exchange` and :meth:`wait` of :meth:`send` and :meth:`receive`, with the results
    that :class:`ccid.transport.Transport` describes. A transfer that brings nothing ends."""

    @abstractmethod
    def send(self, length: int, timeout_ms: int, /) -> None:
        """As :meth:`ccid.transport.Transport.send`."""

    @abstractmethod
    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        """As :meth:`ccid.transport.Transport.receive`."""

    def exchange(self, length: int, size: int, write_ms: int, wait_ms: int, /) -> int:
        """As :meth:`ccid.transport.Transport.exchange`."""
        self.send(length, write_ms)
        return self.wait(size, wait_ms)

    def expect(self, size: int, /) -> None:
        """As :meth:`ccid.transport.Transport.expect`, which is not possible here."""
        return

    def wait(self, size: int, wait_ms: int, /) -> int:
        """As :meth:`ccid.transport.Transport.wait`."""
        try:
            return self.receive(0, size, wait_ms)
        except TransportTimeout:
            return 0
