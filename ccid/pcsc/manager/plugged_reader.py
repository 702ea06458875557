"""A reader that the resource manager has open: its interfaces, each with an IFD handler."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ccid.device.composite import siblings
from ccid.device.open_readers import Key, key_of
from ccid.errors import CcidError
from ccid.known.quirks.descriptor_fixups import apply
from ccid.pcsc.ifd import IFDHandler
from ccid.pcsc.ifd.device_strings import DeviceName
from ccid.pcsc.manager.pcsc_state import PcscReader
from ccid.pcsc.manager.reader_names import base_name
from ccid.pcsc.manager.slot_driver import Post, SlotDriver
from ccid.transport import ReaderInfo

logger = logging.getLogger("ccid.pcsc")

SlotKey = tuple[Key, int]
"""A reader, and which of its slots."""


@dataclass(frozen=True, slots=True, eq=False)
class ReaderOpened:
    """A message to the engine: a reader is open."""

    reader: PluggedReader


@dataclass(frozen=True, slots=True, eq=False)
class ReaderRefused:
    """A message to the engine: a reader cannot be opened."""

    reader: PluggedReader
    error: CcidError


@dataclass(frozen=True, slots=True, eq=False)
class ReaderGivenBack:
    """A message to the engine: a reader that was open is closed."""

    reader: PluggedReader


@dataclass(frozen=True, slots=True, eq=False)
class SlotStirred:
    """A message to the engine: a reader said that something happened in a slot, or that it is
    gone."""

    reader: PluggedReader
    slot: int


class _This:
    """Finds one reader, whatever is asked for."""

    def __init__(self, info: ReaderInfo) -> None:
        self._info = info

    def __call__(self, name: DeviceName, taken: Collection[str]) -> ReaderInfo:
        return self._info


class _Interface:
    """One interface of a reader.

    Args:
        plugged: The reader.
        info: Which interface.
        escape: Applications may send Escape commands.
    """

    def __init__(self, plugged: PluggedReader, info: ReaderInfo, escape: bool) -> None:
        self._plugged = plugged
        self.handler = IFDHandler(self._stirred, escape=escape, find=_This(info))
        self.first_slot = 0

    def open(self, slots: int) -> None:
        """Open it, all its slots.

        Raises:
            CcidError: It cannot be opened.
        """
        for lun in range(slots):
            if self.handler.create_channel(lun, 0):
                error = self.handler.last_error
                raise error if error is not None else CcidError("a slot cannot be opened")

    def _stirred(self, lun: int) -> None:
        self._plugged.stirred(self.first_slot + lun)


class PluggedReader:
    """A reader: one interface, or several that are slots of one.

    Args:
        infos: Its interfaces.
        post: Takes messages to the engine.
        escape: Applications may send Escape commands.

    Attributes:
        infos: Its interfaces.
        drivers: By slot, once it is open.
        state: What the core knows of it.
        is_closed: It is being given back.
        is_again: It was open before, and may not be there any more: nobody is to be told so.
        found_again: Its interfaces, if it was found again since its opening began: if that fails,
            another may have given the reader back meanwhile.

    Raises:
        ReaderTableError: The user's file of readers is wrong.
    """

    def __init__(self, infos: Sequence[ReaderInfo], post: Post, escape: bool) -> None:
        self.infos = tuple(infos)
        self._post = post
        self._interfaces = [_Interface(self, info, escape) for info in infos]
        self._slot_counts = [slot_count(info) for info in infos]
        self.drivers: list[SlotDriver] = []
        self.state: PcscReader
        self.is_closed = self.is_again = False
        self.found_again: tuple[ReaderInfo, ...] = ()
        self._opening: threading.Thread | None = None

    @property
    def key(self) -> Key:
        """What tells it from all others that are there."""
        return key_of(self.infos[0])

    @property
    def device(self) -> Hashable:
        """What it is known by when it comes back: its serial number, or else its place."""
        info = self.infos[0]
        return (info.id, info.interface_number, info.serial or info.path)

    @property
    def base(self) -> str:
        """Its name, without numbers. It does not depend on which other readers are there."""
        info = self.infos[0]
        # the slots of several interfaces are told apart by their numbers
        interface = None if len(self.infos) > 1 else info.interface_name
        return base_name(info.model, interface, info.serial)

    @property
    def keys(self) -> list[SlotKey]:
        """Of its slots."""
        return [(self.key, index) for index in range(sum(self._slot_counts))]

    @property
    def is_polled(self) -> bool:
        """It has a slot that does not tell unasked."""
        return any(
            not interface.handler.has_events(lun)
            for interface, count in zip(self._interfaces, self._slot_counts, strict=True)
            for lun in range(count)
        )

    @property
    def is_gone(self) -> bool:
        """It was unplugged."""
        return any(interface.handler.is_gone(0) for interface in self._interfaces)

    def begin_opening(self) -> None:
        """Open it, in a thread of its own, and post what came of that."""
        self._opening = threading.Thread(
            target=self._open, name=f"opening {self.infos[0].path}", daemon=True
        )
        self._opening.start()

    def _open(self) -> None:
        try:
            for interface, slots in zip(self._interfaces, self._slot_counts, strict=True):
                interface.first_slot = len(self.drivers)
                interface.open(slots)
                self.drivers += [SlotDriver(interface.handler, n, self._post) for n in range(slots)]
        except CcidError as error:
            self._close()
            self._post(ReaderRefused(self, error))
        else:
            self._post(ReaderOpened(self))

    def stirred(self, slot: int) -> None:
        """Something happened in a slot; from any thread."""
        self._post(SlotStirred(self, slot))

    def begin_closing(self) -> threading.Thread:
        """Power its cards off and give it back, in a thread of its own."""
        self.is_closed = True
        thread = threading.Thread(
            target=self._close_opened, name=f"closing {self.infos[0].path}", daemon=True
        )
        thread.start()
        return thread

    def _close_opened(self) -> None:
        """Close the reader; one that is being opened is opened first, else it would stay open."""
        if self._opening is not None:
            self._opening.join()
        for driver in self.drivers:
            driver.end()
        self._close()
        self._post(ReaderGivenBack(self))

    def _close(self) -> None:
        for driver in self.drivers:
            driver.abort()
        for interface in self._interfaces:
            with suppress(CcidError):
                interface.handler.close()


def slot_count(info: ReaderInfo) -> int:
    """How many slots an interface has, mended by what is known of it."""
    return apply(info.quirks(), info.descriptor, info.reader.protocol).slot_count


def grouped(infos: Sequence[ReaderInfo]) -> list[list[ReaderInfo]]:
    """Interfaces as readers: each is one, but for those that the table of readers names as slots
    of one (``composite-interfaces``).

    Args:
        infos: All there are.

    Raises:
        ReaderTableError: The user's file is wrong.
    """
    groups: list[list[ReaderInfo]] = []
    taken: set[Key] = set()
    for info in infos:
        if key_of(info) in taken:
            continue
        named = info.quirks().composite_interfaces
        group = [info]
        if info.interface_number in named:
            group = [one for one in siblings(info, infos) if one.interface_number in named]
        taken.update(key_of(one) for one in group)
        groups.append(group)
    return groups
