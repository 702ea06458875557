"""All errors that the library raises: one class for each kind of failure that a caller handles.

Every class derives from :class:`CcidError` and has attributes besides its message. No error holds
card data, since an APDU may contain a PIN. The message of every error is printable: text from a
device or a file cannot command a terminal.
"""

from __future__ import annotations

import os
from typing import Any

from ccid.ground.safe_text import printable, printable_lines

__all__ = [
    "AccessDenied",
    "CardAbsent",
    "CardDisconnected",
    "CardMute",
    "CardRefused",
    "CardRemoved",
    "CardReset",
    "CcidError",
    "CommandCancelled",
    "CommandFailed",
    "InvalidApdu",
    "MalformedAtr",
    "MalformedDescriptor",
    "MalformedMessage",
    "PpsFailed",
    "ProtocolError",
    "ReaderBusy",
    "ReaderClosed",
    "ReaderForked",
    "ReaderNotFound",
    "ReaderRemoved",
    "ReaderReset",
    "ReaderTableError",
    "ReaderUnsupported",
    "SlotBusy",
    "SlotInUse",
    "TraceFailed",
    "TransportError",
    "TransportStall",
    "TransportTimeout",
    "UnsupportedByReader",
    "UsbUnavailable",
]


class CcidError(Exception):
    """Root of all errors of this library.

    Args:
        message: What failed, where, and the cure if one is known.
        reader: Name of the reader concerned.
        slot: Index of the slot concerned (bSlot).
        bSeq: Sequence number of the command that failed.
        bStatus: bStatus of the reply (USB CCID rev 1.1, 6.2.6).
        bError: bError of the reply (USB CCID rev 1.1, 6.2.6).
    """

    def __init__(
        self,
        message: str,
        *,
        reader: str | None = None,
        slot: int | None = None,
        bSeq: int | None = None,
        bStatus: int | None = None,
        bError: int | None = None,
    ) -> None:
        super().__init__(printable_lines(message))
        self.reader = reader
        self.slot = slot
        self.bSeq = bSeq
        self.bStatus = bStatus
        self.bError = bError

    def __reduce__(self) -> tuple[Any, ...]:
        """Support :mod:`copy` and :mod:`pickle` for every subclass, whatever its constructor
        takes."""
        return _remade, (type(self), self.args), self.__dict__


def _remade(cls: type[CcidError], args: tuple[Any, ...]) -> CcidError:
    """An error of class ``cls`` with the message in ``args``, without attributes."""
    error = cls.__new__(cls, *args)
    error.args = args
    return error


# The reader and the way to it -----------------------------------------------------------------


class UsbUnavailable(CcidError):
    """libusb cannot be loaded, or this system gives libusb no access to USB."""


class ReaderNotFound(CcidError):
    """No reader matches the request, or more than one reader does."""


class ReaderUnsupported(CcidError):
    """The device is present, but this library cannot drive it as a reader."""


class ReaderTableError(CcidError):
    """A file of the table of readers is wrong: a file of the package, or a file of the user.

    Attributes:
        file: Name of the file.
        line: Number of the wrong line, from 1; 0 if no line can be named.
        key: The key that is wrong, such as ``reader.3437.status``; empty if the file is no TOML.
    """

    def __init__(self, message: str, *, file: str, line: int = 0, key: str = "") -> None:
        where = printable(f"{file}:{line}" if line else file)
        what = printable(f"{key}: {message}" if key else message)
        super().__init__(f"{where}: {what}")
        self.file = file
        self.line = line
        self.key = key


class ReaderRemoved(CcidError):
    """The reader was unplugged; the object for this reader cannot be used any more."""


class ReaderClosed(CcidError):
    """The reader object was closed before this call."""


class ReaderForked(CcidError):
    """The parent process opened the reader before a fork; this process has to open the reader
    itself."""


class AccessDenied(CcidError):
    """The operating system does not let this user open the reader.

    Attributes:
        cure: How to get access (on Linux, the text of the udev rule).
    """

    def __init__(self, message: str, *, cure: str = "", reader: str | None = None) -> None:
        super().__init__(message, reader=reader)
        self.cure = cure


class ReaderBusy(CcidError):
    """A kernel driver or another process holds the interface of the reader.

    Attributes:
        holder: The holder, if it is known: a kernel driver, or a process with its number.
        cure: How to free the interface.
    """

    def __init__(
        self, message: str, *, holder: str = "", cure: str = "", reader: str | None = None
    ) -> None:
        super().__init__(message, reader=reader)
        self.holder = holder
        self.cure = cure


class TransportError(CcidError):
    """A USB transfer failed."""


class TransportTimeout(TransportError):
    """The reader did not answer within the time limit."""


class TransportStall(TransportError):
    """The reader halted an endpoint, or stalled a control request (USB 2.0, 8.5.3.4 and 9.4.5)."""


class ReaderReset(TransportError):
    """The reader was reset, or was away from USB for a moment, while a command was under way. The
    command is lost; the reader is open again, and its cards have no power."""


class MalformedDescriptor(CcidError):
    """A USB descriptor is truncated, or contradicts itself.

    Attributes:
        field: Name of the wrong field in the specification.
    """

    def __init__(self, message: str, *, field: str = "", reader: str | None = None) -> None:
        super().__init__(message, reader=reader)
        self.field = field


class MalformedMessage(CcidError):
    """A CCID message is truncated, or contradicts itself.

    Attributes:
        field: Name of the wrong field in the specification.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        reader: str | None = None,
        slot: int | None = None,
        bSeq: int | None = None,
    ) -> None:
        super().__init__(message, reader=reader, slot=slot, bSeq=bSeq)
        self.field = field


class TraceFailed(CcidError, OSError):
    """A file for traffic (a trace, a report) cannot be created or written.

    Attributes:
        file: Name of the file.
    """

    def __init__(self, message: str, *, file: str | os.PathLike[str] = "") -> None:
        super().__init__(message)
        self.file = os.fspath(file)


# The slot and the card in it ------------------------------------------------------------------


class CommandFailed(CcidError):
    """The reader answered a command with bmCommandStatus "failed" (USB CCID rev 1.1, 6.2.6)."""


class SlotBusy(CommandFailed):
    """The slot still executes an earlier command (CMD_SLOT_BUSY, BUSY_WITH_AUTO_SEQUENCE)."""


class CommandCancelled(CcidError):
    """:meth:`ccid.Slot.cancel` ended the command (USB CCID rev 1.1, 5.3.1 and 6.1.13)."""


class UnsupportedByReader(CcidError):
    """The reader cannot do what was requested, according to its descriptor or its answer."""


class SlotInUse(CcidError):
    """A :class:`ccid.Card` is already connected on this slot."""


class CardAbsent(CcidError):
    """No card is in the slot."""


class CardMute(CcidError):
    """A card is in the slot and does not answer."""


class CardRemoved(CcidError):
    """The card was removed since it was connected, even if a card is in the slot again."""


class CardReset(CcidError):
    """Since the card was connected, another holder reset the card or powered it off, or the card
    lost its power, as when its reader is reset or the computer sleeps."""


class CardRefused(CcidError):
    """A card, or the contactless reader for it, answered a command of this library with an error.

    Attributes:
        sw: SW1 SW2 of the response, as one number.
    """

    def __init__(
        self, message: str, *, sw: int, reader: str | None = None, slot: int | None = None
    ) -> None:
        super().__init__(message, reader=reader, slot=slot)
        self.sw = sw


class CardDisconnected(CcidError):
    """The program disconnected this :class:`ccid.Card` before this call."""


class ProtocolError(CcidError):
    """The card or the reader violated the protocol.

    Attributes:
        may_have_executed: True if the card may have executed the command whose response was
            lost. The same command sent again might then be executed twice.
    """

    def __init__(
        self,
        message: str,
        *,
        may_have_executed: bool = False,
        reader: str | None = None,
        slot: int | None = None,
        bSeq: int | None = None,
        bStatus: int | None = None,
        bError: int | None = None,
    ) -> None:
        super().__init__(
            message, reader=reader, slot=slot, bSeq=bSeq, bStatus=bStatus, bError=bError
        )
        self.may_have_executed = may_have_executed


class PpsFailed(ProtocolError):
    """The card did not confirm the PPS request (ISO/IEC 7816-3:2006 9.3)."""


class InvalidApdu(CcidError):
    """The bytes are no command APDU (ISO/IEC 7816-3:2006 12.1)."""


class MalformedAtr(CcidError):
    """The ATR is incomplete, or contradicts itself (ISO/IEC 7816-3:2006 8)."""
