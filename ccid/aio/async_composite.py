"""Several interfaces of one USB device, for tasks of asyncio: the face of
:class:`ccid.Composite` with the same names."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ccid.aio.async_reader import Reader
from ccid.aio.async_slot import Slot
from ccid.aio.job_thread import apart, apart_to_the_end
from ccid.aio.opening import Ending, Opening
from ccid.device import composite as blocking
from ccid.link.conversation import MAX_COMMAND_S
from ccid.transport import ReaderInfo

if TYPE_CHECKING:
    from ccid.virtual import VirtualReader


class Composite(Ending):
    """Several interfaces of one device, opened as one reader.

    Call :meth:`close` at the end, or use ``async with``.

    Attributes:
        readers: The open interfaces.
        slots: The slots of all interfaces, in the order of ``readers``. ``Slot.index`` is bSlot,
            so two slots of different interfaces may have the same ``index``.
    """

    def __init__(self, composite: blocking.Composite, loop: asyncio.AbstractEventLoop) -> None:
        """Make the face of open interfaces; :func:`open_composite` does.

        Args:
            composite: The interfaces.
            loop: The loop of the tasks that use them.

        Raises:
            TransportError: The system has no thread left.
        """
        self._composite = composite
        self.readers: tuple[Reader, ...] = ()
        try:
            for one in composite.readers:
                self.readers += (Reader(one, loop),)
        except BaseException:
            self._part()
            raise
        self.slots: tuple[Slot, ...] = tuple(slot for one in self.readers for slot in one.slots)

    def _part(self) -> None:
        for one in self.readers:
            one._part()

    def _undo(self) -> None:
        """Close all interfaces. No task got this object."""
        try:
            self._composite.close()
        finally:
            self._part()

    @property
    def name(self) -> str:
        """The name of the first interface, for people."""
        return self._composite.name

    async def close(self) -> None:
        """Close all interfaces (:meth:`ccid.aio.Reader.close`). A second call has no effect."""
        self._part()
        await apart_to_the_end(f"closing {self.name}", self._composite.close)

    async def _leave(self, error: BaseException | None) -> None:
        await self.close()

    def _forget(self) -> None:
        for one in self.readers:
            one._forget()

    def __repr__(self) -> str:
        return f"<ccid.aio.Composite {self.name!r}, {len(self.readers)} interfaces>"


def open_composite(
    which: ReaderInfo | VirtualReader | str | None = None,
    *,
    max_command_s: float | None = MAX_COMMAND_S,
    old_firmware: bool = False,
) -> Opening[Composite]:
    """Open the interfaces of a USB device as one reader.

    Args:
        which: One interface of the device, as for :func:`ccid.aio.open_reader`; or a
            :class:`ccid.VirtualReader`.
        max_command_s, old_firmware: As for :func:`ccid.aio.open_reader`.

    Returns:
        The open reader.

    Raises:
        ReaderNotFound: No reader, or more than one, fits ``which``.
        CcidError: As :func:`ccid.aio.open_reader`.
    """
    begin = partial(
        blocking.open_composite, which, max_command_s=max_command_s, old_firmware=old_firmware
    )
    return Opening(partial(_opened, begin))


async def _opened(begin: partial[blocking.Composite]) -> Composite:
    loop = asyncio.get_running_loop()

    def opened() -> Composite:
        composite = begin()
        try:
            return Composite(composite, loop)
        except BaseException:
            composite.close()
            raise

    return await apart("open_composite", opened, Composite._undo)
