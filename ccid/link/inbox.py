"""Whole messages off bulk-IN.

A reader ends a message with a packet that is not full, or with an empty one. So a transfer may
bring the whole message, its first part (as much as was asked for, or as came before the time ran
out), or only the empty packet that ends the message before.

Some readers send more than dwLength announces: padding to a whole packet, old contents of their
buffer, or the next message, when nothing ended the one before. The header alone says how long a
message is. Messages that follow it are kept. All other surplus is fetched, dropped and counted, so
that it never meets the next command. Both are bounded by bytes and by time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ccid.codec.messages import MESSAGE_HEADER
from ccid.codec.messages.replies import REPLIES
from ccid.errors import MalformedMessage, TransportTimeout
from ccid.link.wiping import wipe
from ccid.transport import IN_CAPACITY, Transport

FIRST_READ, LONGEST_FIRST_READ = 512, 4096
"""Bytes asked for at first: a short APDU's reply fits into the first figure. The longest message of
the reader is asked for where it fits into the second. More costs time on every APDU, so it is asked
for only after a reply that was longer (:meth:`Inbox.whole_read`)."""
REST_MS = 5000
"""How long the rest of a message may take in all, after its begin."""
SURPLUS_MS = 10
"""How long to wait for more of a transfer that goes on after the end of its message."""
SURPLUS_BYTES = 2 * IN_CAPACITY
"""Bytes of such a transfer that are fetched and dropped."""

Patience = Callable[[], int]
"""How many milliseconds the next wait may take; 0 when the time is over. Raises if the command was
cancelled."""


def first_read(packet_size: int, longest_message: int = 0) -> int:
    """How many bytes to ask for at first: whole packets.

    Args:
        packet_size: Bytes of a full bulk-IN packet.
        longest_message: dwMaxCCIDMessageLength; 0 if it is not known.
    """
    fits = FIRST_READ < longest_message <= LONGEST_FIRST_READ
    return _whole_packets(longest_message if fits else FIRST_READ, packet_size)


def _whole_packets(size: int, packet_size: int) -> int:
    return -(-size // packet_size) * packet_size


class Inbox:
    """The bytes of bulk-IN, cut into messages.

    Args:
        name: The reader's name, for errors.
        longest_message: dwMaxCCIDMessageLength; 0 if it is not known.

    Attributes:
        later: Messages that came right behind another one, in its transfer.
        surplus: How many bytes after the end of a message were dropped.
    """

    def __init__(self, name: str, longest_message: int = 0) -> None:
        self.name = name
        self.longest_message = longest_message
        self._first_read = 0
        self.later: deque[bytes] = deque()
        self.surplus = 0

    def first_read(self, transport: Transport) -> int:
        """How many bytes of a message to ask for at first."""
        if not self._first_read:
            self._first_read = first_read(transport.packet_size, self.longest_message)
        return self._first_read

    def whole_read(self, transport: Transport) -> int:
        """How many bytes to ask for where a long message is likely: the longest that the reader
        has, as far as there is room."""
        packet = transport.packet_size
        longest = min(self.longest_message, IN_CAPACITY - packet)
        return max(self.first_read(transport), _whole_packets(longest, packet))

    def read(
        self, transport: Transport, timeout_ms: int, patience: Patience, is_last: bool = False
    ) -> bytes | MalformedMessage | None:
        """One message, or what is wrong with it; None if none came in time, or an empty packet.

        Args:
            transport: Where it comes from.
            timeout_ms: How long to wait for its first byte.
            patience: How long to wait for each part of the rest.
            is_last: No later call goes on waiting for this message.

        Raises:
            All that the transport and ``patience`` raise.
        """
        if self.later:
            return self.later.popleft()
        size = self.first_read(transport)
        if is_last:
            try:
                got = transport.receive(0, size, timeout_ms)
            except TransportTimeout:
                return None
        else:
            got = transport.wait(size, timeout_ms)
        return self.whole(transport, got, patience) if got else None

    def whole(self, transport: Transport, got: int, patience: Patience) -> bytes | MalformedMessage:
        """The message whose first ``got`` bytes are in ``transport.inp``, read to its end; or what
        is wrong with it: its header is cut off, or it is shorter or longer than it may be."""
        inp, packet = transport.inp, transport.packet_size
        until = time.monotonic() + REST_MS / 1000
        got = self._fill(transport, got, MESSAGE_HEADER, patience, until)
        if got < MESSAGE_HEADER:
            return self._wrong(
                inp, got, f"{got} bytes are no reply; its header alone has {MESSAGE_HEADER}"
            )
        length = int.from_bytes(inp[1:5], "little")
        size = MESSAGE_HEADER + length
        said = f"dwLength announces {length} bytes of data"
        if size > IN_CAPACITY - packet:
            wrong = self._wrong(inp, got, said)
            head = bytes(inp[:MESSAGE_HEADER])
            wipe(inp, got)
            self.surplus += got
            if got % packet == 0:
                self._drain(transport, head, patience, until)
            return wrong
        got = self._fill(transport, got, size, patience, until)
        if got < size:
            wrong = self._wrong(inp, got, f"{said}, {got - MESSAGE_HEADER} came")
            wipe(inp, got)
            return wrong
        message, behind = bytes(inp[:size]), bytes(inp[size:got])
        wipe(inp, got)
        if got > size:
            self._split(behind)
            if got % packet == 0:
                self._drain(transport, message, patience, until)
        return message

    def _wrong(self, inp: memoryview, got: int, what: str) -> MalformedMessage:
        return MalformedMessage(
            f"{self.name}: {what}",
            field="dwLength",
            reader=self.name,
            slot=inp[5] if got > 5 else None,
            bSeq=inp[6] if got > 6 else None,
        )

    def _fill(
        self, transport: Transport, got: int, size: int, patience: Patience, until: float
    ) -> int:
        """Read on until ``size`` bytes are there, or a packet that was not full has ended it all,
        or the time is over."""
        packet = transport.packet_size
        while got < size and got % packet == 0:
            wait_ms = min(patience(), int((until - time.monotonic()) * 1000))
            if wait_ms <= 0:
                break
            try:
                more = transport.receive(got, _whole_packets(size - got, packet), wait_ms)
            except TransportTimeout:
                continue
            if more == 0:
                break
            got += more
        return got

    def _split(self, data: bytes) -> None:
        """Keep the messages that ``data`` begins with; count what follows."""
        while len(data) >= MESSAGE_HEADER and data[0] in REPLIES:
            size = MESSAGE_HEADER + int.from_bytes(data[1:5], "little")
            if size > len(data):
                break
            self.later.append(data[:size])
            data = data[size:]
        self.surplus += len(data)

    def _drain(self, transport: Transport, before: bytes, patience: Patience, until: float) -> None:
        """Fetch what a transfer brings after the end of the message ``before``."""
        inp, packet = transport.inp, transport.packet_size
        left = SURPLUS_BYTES
        while left > 0:
            wait_ms = min(patience(), SURPLUS_MS, int((until - time.monotonic()) * 1000))
            if wait_ms <= 0:
                return
            try:
                got = transport.receive(0, _whole_packets(IN_CAPACITY // 2, packet), wait_ms)
            except TransportTimeout:
                return
            if bytes(inp[5:7]) == before[5:7] and inp[0] in REPLIES and got >= MESSAGE_HEADER:
                size = MESSAGE_HEADER + int.from_bytes(inp[1:5], "little")
                if size <= IN_CAPACITY - packet:  # no surplus: more of what answers the command
                    got = self._fill(transport, got, size, patience, until)
            left -= max(got, 1)
            self._split(bytes(inp[:got]))
            wipe(inp, got)
            if got % packet or not got:
                return
