"""pcapng files for Wireshark, with the same packets as Linux's usbmon records.

The link type is LINKTYPE_USB_LINUX_MMAPPED: each URB has one packet for its submission and one for
its completion, and each packet begins with a header of 64 bytes. A trace begins with the control
transfers that read the descriptors of the reader: by the descriptors Wireshark selects its USBCCID
dissector.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from typing import BinaryIO

from ccid.codec.descriptors import ClassControl
from ccid.codes import DIRECTION_IN, GET_DESCRIPTOR
from ccid.errors import (
    CcidError,
    ReaderRemoved,
    TraceFailed,
    TransportStall,
    TransportTimeout,
)
from ccid.ground.signal_safe_locks import new_rlock
from ccid.trace.private_files import open_private
from ccid.trace.tap import Kind, Sink, Transfer
from ccid.transport import ReaderInfo

LINKTYPE_USB_LINUX_MMAPPED = 220
SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
"""Types of blocks."""
BYTE_ORDER_MAGIC = 0x1A2B3C4D
OPT_END, OPT_COMMENT, SHB_USERAPPL, IF_NAME, IF_TSRESOL = 0, 1, 4, 2, 9
"""Codes of options."""

URB = struct.Struct("<Q4BHBBqiiII8sii2I")
"""The header of a packet: id, event, transfer type, endpoint, device, bus, setup flag, data flag,
seconds, microseconds, status, length, captured length, setup, interval, start frame, transfer
flags, number of isochronous descriptors."""

SUBMIT, COMPLETE = ord("S"), ord("C")
"""Events of a URB."""
EINPROGRESS = -115
"""Status of a URB that is submitted."""
STATUS: tuple[tuple[type[CcidError], int], ...] = (
    (TransportTimeout, -errno.ENOENT),
    (TransportStall, -errno.EPIPE),
    (ReaderRemoved, -errno.ENODEV),
)
"""Status of a URB that ended with an error."""


class PcapngSink(Sink):
    """Writes transfers to a pcapng file.

    Args:
        target: The name of the file, as for :func:`~.private_files.open_private`; or a binary file
            that is open for writing, which stays open at the end.
        keep_open: True to keep the file open after the trace of a reader has ended, until
            :meth:`close`.

    Attributes:
        owner: Number of the process that made this sink.

    Raises:
        TraceFailed: The file cannot be made.
    """

    def __init__(self, target: str | os.PathLike[str] | BinaryIO, keep_open: bool = False) -> None:
        self.owner = os.getpid()
        self._name = os.fspath(target) if isinstance(target, str | os.PathLike) else None
        self._file: BinaryIO = (
            open_private(target) if isinstance(target, str | os.PathLike) else target
        )
        self._keep_open = keep_open
        # Re-entrant: the garbage collector may run while the lock is held, and close a reader
        self._lock = new_rlock()
        self._id = 0
        self._ended = False
        magic = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)
        self._block(SECTION_HEADER, magic + _options((SHB_USERAPPL, b"ccid")))
        self._block(
            INTERFACE_DESCRIPTION,
            struct.pack("<HHI", LINKTYPE_USB_LINUX_MMAPPED, 0, 0)
            + _options((IF_NAME, b"usbmon0"), (IF_TSRESOL, b"\x06")),
        )

    def begin(self, info: ReaderInfo) -> None:
        """Write the control transfers that read the descriptors of a reader.

        Args:
            info: The reader.

        Raises:
            TraceFailed: The file cannot be written.
            OSError: The binary file given to the constructor cannot be written.
        """
        try:
            self._begin(info)
        except OSError as error:
            if self._name is None:
                raise
            reason = error.strerror or error
            raise TraceFailed(
                f"{self._name!r} cannot be written: {reason}", file=self._name
            ) from error

    def _begin(self, info: ReaderInfo) -> None:
        device, now = info.device.build(), time.time()
        for wValue, data in ((0x0100, device), (0x0200, info.raw_configuration)):
            setup = ClassControl(DIRECTION_IN, GET_DESCRIPTOR, wValue, 0, len(data))
            whole = Transfer(Kind.CONTROL, DIRECTION_IN, now, now, None, data, len(data), setup)
            self.transfer(info, whole)

    def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
        """Write the two packets of a transfer.

        Args:
            info: The reader.
            transfer: The transfer.

        Raises:
            OSError: The file cannot be written.
        """
        is_in = bool(transfer.endpoint & DIRECTION_IN)
        with self._lock:
            if self._ended:
                return
            self._id = number = self._id + 1
            self._packet(info, number, transfer, SUBMIT, b"" if is_in else transfer.data)
            self._packet(info, number, transfer, COMPLETE, transfer.data if is_in else b"")
            self._file.flush()

    def end(self) -> None:
        """Close the file at the end of a trace, unless ``keep_open``."""
        if not self._keep_open:
            self.close()

    def close(self) -> None:
        """Write no more, and close the file if this sink opened the file. A second call has no
        effect.

        Raises:
            OSError: The last bytes cannot be written.
        """
        if self.owner != os.getpid():
            return  # the parent of this forked child writes the file
        with self._lock:
            self._ended = True
            if self._name is not None:
                self._file.close()

    def _packet(
        self, info: ReaderInfo, number: int, transfer: Transfer, event: int, data: bytes
    ) -> None:
        submitted = event == SUBMIT
        when = transfer.began if submitted else transfer.ended
        microseconds = round(when * 1_000_000)
        is_in = bool(transfer.endpoint & DIRECTION_IN)
        has_setup = submitted and transfer.setup is not None
        length = transfer.asked if submitted == is_in and submitted else len(transfer.data)
        head = URB.pack(
            number,
            event,
            transfer.kind,
            transfer.endpoint,
            info.address,
            info.bus,
            0 if has_setup else ord("-"),
            0 if data else ord("<" if is_in else ">"),
            microseconds // 1_000_000,
            microseconds % 1_000_000,
            EINPROGRESS if submitted else _status(transfer.error),
            length,
            len(data),
            _setup(transfer.setup) if has_setup and transfer.setup else bytes(8),
            0,
            0,
            0,
            0,
        )
        packet = head + data
        comment = ((OPT_COMMENT, b"secret data masked"),) if transfer.is_masked and data else ()
        high, low = divmod(microseconds, 1 << 32)
        self._block(
            ENHANCED_PACKET,
            struct.pack("<5I", 0, high, low, len(packet), len(packet))
            + _padded(packet)
            + _options(*comment),
        )

    def _block(self, kind: int, body: bytes) -> None:
        size = 12 + len(body)
        self._file.write(struct.pack("<II", kind, size) + body + struct.pack("<I", size))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _options(*options: tuple[int, bytes]) -> bytes:
    if not options:
        return b""
    parts = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join(parts) + struct.pack("<HH", OPT_END, 0)


def _setup(setup: ClassControl) -> bytes:
    return struct.pack(
        "<BBHHH",
        setup.bmRequestType,
        setup.bRequest,
        setup.wValue,
        setup.wIndex,
        setup.wLength,
    )


def _status(error: CcidError | None) -> int:
    """The status of a completed URB, as usbmon records it."""
    if error is None:
        return 0
    for kind, status in STATUS:
        if isinstance(error, kind):
            return status
    return -errno.EPROTO
