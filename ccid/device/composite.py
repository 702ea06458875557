"""Several CCID interfaces of one USB device, opened as one reader.

A device with a contact and a contactless interface, for example, is two readers on USB. A
:class:`Composite` has the slots of both, and closes both. Each interface stays a
:class:`ccid.Reader` with its own conversation, so the slots of different interfaces work at the
same time, unless the device has the quirk ``interfaces-take-turns``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ccid.device.find import list_readers, open_reader, select
from ccid.device.reader import Reader
from ccid.device.slot import Slot
from ccid.link.conversation import MAX_COMMAND_S
from ccid.transport import ReaderInfo

if TYPE_CHECKING:
    from ccid.virtual import VirtualReader


def siblings(info: ReaderInfo, readers: Sequence[ReaderInfo]) -> list[ReaderInfo]:
    """The readers that are interfaces of the same USB device as ``info``.

    Args:
        info: One interface of the device.
        readers: All readers, as from :func:`ccid.list_readers`.

    Returns:
        Those of ``readers`` on the device of ``info``, in order of bInterfaceNumber.
    """
    place = (info.bus, info.address, info.id)
    found = [one for one in readers if (one.bus, one.address, one.id) == place]
    return sorted(found, key=lambda one: one.interface_number)


def members(interfaces: Sequence[ReaderInfo]) -> list[ReaderInfo]:
    """The interfaces of one device that make up its composite reader.

    Args:
        interfaces: All interfaces of the device; at least one.

    Returns:
        The interfaces that the table of readers names (quirk ``composite-interfaces``); all of
        ``interfaces`` if the table names none of them.

    Raises:
        ReaderTableError: The user's table of readers has an error.
    """
    first = interfaces[0]
    quirks = first.quirks()
    named = [one for one in interfaces if one.interface_number in quirks.composite_interfaces]
    return named or list(interfaces)


class Composite:
    """Several interfaces of one device, opened as one reader.

    Call :meth:`close` at the end, or use ``with``.

    Attributes:
        readers: The open interfaces, in the order of ``interfaces``.
        slots: The slots of all interfaces, in the order of ``readers``. ``Slot.index`` is bSlot,
            so two slots of different interfaces may have the same ``index``.
    """

    def __init__(
        self,
        interfaces: Sequence[ReaderInfo],
        *,
        max_command_s: float | None = MAX_COMMAND_S,
        old_firmware: bool = False,
    ) -> None:
        """Open all interfaces. If one cannot be opened, none stays open.

        Args:
            interfaces: Interfaces of one device; at least one.
            max_command_s, old_firmware: As for :func:`ccid.open_reader`.

        Raises:
            CcidError: As :func:`ccid.open_reader`.
        """
        with ExitStack() as opened:
            self.readers: tuple[Reader, ...] = tuple(
                opened.enter_context(
                    open_reader(one, max_command_s=max_command_s, old_firmware=old_firmware)
                )
                for one in interfaces
            )
            self._opened = opened.pop_all()
        self.slots: tuple[Slot, ...] = tuple(slot for one in self.readers for slot in one.slots)

    @property
    def name(self) -> str:
        """The name of the first interface, for people."""
        return self.readers[0].name

    def close(self) -> None:
        """Close all interfaces (:meth:`ccid.Reader.close`). A second call has no effect."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ccid.Composite {self.name!r}, {len(self.readers)} interfaces>"


def open_composite(
    which: ReaderInfo | VirtualReader | str | None = None,
    *,
    max_command_s: float | None = MAX_COMMAND_S,
    old_firmware: bool = False,
) -> Composite:
    """Open the interfaces of a USB device as one reader.

    Args:
        which: One interface of the device, as for :func:`ccid.open_reader`; or a
            :class:`ccid.VirtualReader`.
        max_command_s, old_firmware: As for :func:`ccid.open_reader`.

    Returns:
        The open reader.

    Raises:
        ReaderNotFound: No reader, or more than one, fits ``which``.
        CcidError: As :func:`ccid.open_reader`.
    """
    if which is not None and not isinstance(which, str | ReaderInfo):
        interfaces = list(which.infos)
    else:
        there = list_readers()
        info = which if isinstance(which, ReaderInfo) else select(there, which)
        interfaces = siblings(info, there) or [info]
    return Composite(members(interfaces), max_command_s=max_command_s, old_firmware=old_firmware)
