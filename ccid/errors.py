"""Every error this library raises: one class per thing a caller would handle differently.

All derive from :class:`CcidError` and carry fields, not only prose. No error ever holds card
data: an APDU may contain a PIN. A message is printable: what a device or a file put into it cannot
reach a terminal as a command.
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
        message: What went wrong, where, and, where there is one, the cure.
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
        """For :mod:`copy` and :mod:`pickle`, whatever the arguments of a class are called."""
        return _remade, (type(self), self.args), self.__dict__


def _remade(cls: type[CcidError], args: tuple[Any, ...]) -> CcidError:
    """An error of this class with the message that is in ``args``, and no attributes yet."""
    error = cls.__new__(cls, *args)
    error.args = args
    return error


# The reader and the way to it -----------------------------------------------------------------


class UsbUnavailable(CcidError):
    """libusb cannot be loaded, or this system does not let it see USB at all."""


class ReaderNotFound(CcidError):
    """No reader answers to what was asked for, or more than one does."""


class ReaderUnsupported(CcidError):
    """The device is there, but it is no reader that this library can drive."""


class ReaderTableError(CcidError):
    """A file of the table of readers, or the user's own, is wrong.

    Attributes:
        file: Which file.
        line: Its line, from 1; 0 where no line can be named.
        key: The key that is wrong, as ``reader.3437.status``; empty if it is no TOML at all.
    """

    def __init__(self, message: str, *, file: str, line: int = 0, key: str = "") -> None:
        where = printable(f"{file}:{line}" if line else file)
        told = printable(f"{key}: {message}" if key else message)
        super().__init__(f"{where}: {told}")
        self.file = file
        self.line = line
        self.key = key


class ReaderRemoved(CcidError):
    """The reader was unplugged; the object that stood for it is of no more use."""


class ReaderClosed(CcidError):
    """The reader object was closed before this call."""


class ReaderForked(CcidError):
    """The reader was opened by the parent of this process; open it again here instead."""


class AccessDenied(CcidError):
    """The operating system does not let this user open the reader.

    Attributes:
        cure: What to do about it (on Linux, the udev rule itself).
    """

    def __init__(self, message: str, *, cure: str = "", reader: str | None = None) -> None:
        super().__init__(message, reader=reader)
        self.cure = cure


class ReaderBusy(CcidError):
    """Somebody else holds the reader's interface.

    Attributes:
        holder: Who, as far as can be seen: a kernel driver, or a process and its number.
        cure: What to do about it.
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
    """The reader did not answer in time."""


class TransportStall(TransportError):
    """The reader halted an endpoint, or refused a control request."""


class MalformedDescriptor(CcidError):
    """A USB descriptor is truncated, or contradicts itself.

    Attributes:
        field: Name of the offending field, as the specification spells it.
    """

    def __init__(self, message: str, *, field: str = "", reader: str | None = None) -> None:
        super().__init__(message, reader=reader)
        self.field = field


class MalformedMessage(CcidError):
    """A CCID message is truncated, or contradicts itself.

    Attributes:
        field: Name of the offending field, as the specification spells it.
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
    """A file for traffic (a trace, a report) cannot be made, or cannot be written.

    Attributes:
        file: Its name.
    """

    def __init__(self, message: str, *, file: str | os.PathLike[str] = "") -> None:
        super().__init__(message)
        self.file = os.fspath(file)


# The slot and the card in it ------------------------------------------------------------------


class CommandFailed(CcidError):
    """The reader answered a command with bmCommandStatus "failed" (USB CCID rev 1.1, 6.2.6)."""


class SlotBusy(CommandFailed):
    """The slot still works on an earlier command (CMD_SLOT_BUSY, BUSY_WITH_AUTO_SEQUENCE)."""


class CommandCancelled(CcidError):
    """The command was ended by :meth:`ccid.Slot.cancel` (USB CCID rev 1.1, 5.3.1 and 6.1.13)."""


class UnsupportedByReader(CcidError):
    """This reader cannot do what was asked, by its descriptor or by its own answer."""


class SlotInUse(CcidError):
    """A :class:`ccid.Card` is already connected on this slot."""


class CardAbsent(CcidError):
    """There is no card in the slot."""


class CardMute(CcidError):
    """The card is there and does not answer."""


class CardRemoved(CcidError):
    """The card was taken out since it was connected, even if one is in the slot again."""


class CardReset(CcidError):
    """The card was reset or powered off by another holder since it was connected."""


class CardDisconnected(CcidError):
    """This :class:`ccid.Card` was disconnected by its own holder before this call."""


class ProtocolError(CcidError):
    """The card or the reader broke the protocol.

    Attributes:
        may_have_executed: True if the card may have carried out the command whose answer was
            lost, so that sending it again could do it twice.
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
    """The card did not confirm what was asked of it by PPS (ISO/IEC 7816-3:2006 9.3)."""


class InvalidApdu(CcidError):
    """The bytes given are no command APDU (ISO/IEC 7816-3:2006 12.1)."""


class MalformedAtr(CcidError):
    """The answer to reset breaks off, or contradicts itself (ISO/IEC 7816-3:2006 8)."""
