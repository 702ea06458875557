"""What a reader is talked to with: one conversation, and the commands of each of its slots."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import HEADER_LENGTH
from ccid.codes import InterfaceProtocol
from ccid.device.open_readers import opened
from ccid.link.conversation import Conversation
from ccid.link.iccd_commands import IccdA, IccdB
from ccid.link.pipe import Pipe
from ccid.link.reader_cards import Cards
from ccid.link.shared_pipe import SharedPipe
from ccid.link.slot_commands import Commands, SlotCommands

if TYPE_CHECKING:
    from ccid.known.quirks import Quirks
    from ccid.transport import ReaderInfo, Transport


class SharedTurns:
    """A lock for interfaces of one device that cannot be talked to at once."""

    def __init__(self) -> None:
        self.lock = threading.RLock()


_turns: WeakValueDictionary[tuple[int, int], SharedTurns] = WeakValueDictionary()
_turns_lock = threading.RLock()


def _renew_turns() -> None:
    """In a forked child: a thread of the parent may hold a lock."""
    global _turns_lock
    _turns_lock = threading.RLock()
    _turns.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_turns)


def shared_turns(info: ReaderInfo, quirks: Quirks) -> SharedTurns | None:
    """The lock that the interfaces of this device share; None where each has its own turns.

    The caller keeps the object for as long as its reader is there.
    """
    if not quirks.interfaces_take_turns:
        return None
    with _turns_lock:  # two interfaces that are opened at once share one
        return _turns.setdefault((info.bus, info.address), SharedTurns())


def make_conversation(
    transport: Transport,
    info: ReaderInfo,
    descriptor: SmartCardDescriptor,
    cards: Cards,
    turns: SharedTurns | None,
    max_command_s: float | None,
) -> Conversation:
    """The conversation that fits the reader.

    ICCD devices have a plain :class:`Conversation` (control pipe only), CCID readers a
    :class:`Pipe`, and those that work on several slots at once a :class:`SharedPipe`.

    Args:
        transport: The open interface.
        info: The reader.
        descriptor: Its class descriptor, mended.
        cards: What is known of the cards in it.
        turns: The lock that its device's interfaces share.
        max_command_s: Most seconds that a command may take; None for no limit.
    """
    lock = None if turns is None else turns.lock
    name, interface = info.name, info.interface_number
    if info.reader.is_iccd:
        return Conversation(
            transport,
            name=name,
            interface=interface,
            lock=lock,
            max_command_s=max_command_s,
            cards=cards,
        )
    count = descriptor.slot_count
    if count > 1 and descriptor.bMaxCCIDBusySlots > 1:
        return SharedPipe(
            transport,
            slot_count=count,
            busy_slots=min(descriptor.bMaxCCIDBusySlots, count),
            name=name,
            interface=interface,
            lock=lock,
            max_command_s=max_command_s,
            cards=cards,
        )
    return Pipe(
        transport,
        slot_count=count,
        name=name,
        interface=interface,
        lock=lock,
        max_command_s=max_command_s,
        cards=cards,
    )


def make_commands(
    conversation: Conversation,
    info: ReaderInfo,
    descriptor: SmartCardDescriptor,
    slot: int,
    quirks: Quirks,
) -> SlotCommands:
    """The commands of one slot.

    Args:
        conversation: What :func:`make_conversation` made.
        info: The reader.
        descriptor: Its class descriptor, mended.
        slot: bSlot.
        quirks: Those of this slot.
    """
    if isinstance(conversation, Pipe):
        commands = Commands(conversation, slot, quirks)
        if quirks.presence_of_interface is not None:
            commands.detector = Neighbour(info, quirks.presence_of_interface)
        return commands
    room = descriptor.dwMaxCCIDMessageLength - HEADER_LENGTH
    is_a = info.reader.protocol is InterfaceProtocol.ICCD_A
    return (IccdA if is_a else IccdB)(conversation, room, quirks)


class Neighbour:
    """Another interface of the same device, which knows whether there is a card.

    Args:
        info: The reader whose neighbour this is.
        interface: bInterfaceNumber of the neighbour.
    """

    def __init__(self, info: ReaderInfo, interface: int) -> None:
        self._place = (info.bus, info.address, interface)

    def __call__(self) -> SlotCommands | None:
        """The commands of its first slot, if this process has the interface open."""
        for reader in list(opened.readers.values()):
            info = reader.info
            place = (info.bus, info.address, info.interface_number)
            if place == self._place and not reader.is_closed:
                return reader.slots[0].commands
        return None
