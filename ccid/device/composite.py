"""Several interfaces of one device as the slots of one reader.

A device with a contact and a contactless interface, say, is two readers to USB. Who wants it as
one opens it here: it has the slots of all, and is closed as one. Each interface stays a
:class:`ccid.Reader` with a conversation of its own, so their slots work at the same time, unless
the device has the quirk ``interfaces-take-turns``.
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
    """Those of ``readers`` that are interfaces of the same device, by bInterfaceNumber."""
    place = (info.bus, info.address, info.id)
    found = [one for one in readers if (one.bus, one.address, one.id) == place]
    return sorted(found, key=lambda one: one.interface_number)


def members(interfaces: Sequence[ReaderInfo]) -> list[ReaderInfo]:
    """Those of a device's interfaces that are slots of one reader: the ones that the table of
    readers names (``composite-interfaces``), else all.

    Raises:
        ReaderTableError: The user's file is wrong.
    """
    first = interfaces[0]
    quirks = first.quirks()
    named = [one for one in interfaces if one.interface_number in quirks.composite_interfaces]
    return named or list(interfaces)


class Composite:
    """Several interfaces of one device, opened as one reader. Close it, or use ``with``.

    Attributes:
        readers: The interfaces, by bInterfaceNumber.
        slots: The slots of all. Their order is the numbering here; ``Slot.index`` is bSlot.
    """

    def __init__(
        self,
        interfaces: Sequence[ReaderInfo],
        *,
        max_command_s: float | None = MAX_COMMAND_S,
        old_firmware: bool = False,
    ) -> None:
        """Open them all, or none.

        Args:
            interfaces: Of one device.
            max_command_s, old_firmware: As for :func:`ccid.open_reader`.

        Raises:
            What :func:`ccid.open_reader` does.
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
        """Its name, for people: that of its first interface."""
        return self.readers[0].name

    def close(self) -> None:
        """Close all interfaces. More than once does no harm."""
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
    """Open all interfaces of a device as one reader.

    Args:
        which: One of its interfaces, as for :func:`ccid.open_reader`; or a
            :class:`ccid.VirtualReader`.
        max_command_s, old_firmware: As for :func:`ccid.open_reader`.

    Raises:
        ReaderNotFound: There is no such reader.
        And what :func:`ccid.open_reader` does.
    """
    if which is not None and not isinstance(which, str | ReaderInfo):
        interfaces = list(which.infos)
    else:
        there = list_readers()
        info = which if isinstance(which, ReaderInfo) else select(there, which)
        interfaces = siblings(info, there) or [info]
    return Composite(members(interfaces), max_command_s=max_command_s, old_firmware=old_firmware)
