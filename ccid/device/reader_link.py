"""The conversation with a reader, and the commands of each of its slots."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import MESSAGE_HEADER
from ccid.codes import InterfaceProtocol
from ccid.device.open_readers import device_of, opened
from ccid.ground.signal_safe_locks import new_rlock
from ccid.link.conversation import Conversation
from ccid.link.iccd_commands import IccdA, IccdB
from ccid.link.pipe import Pipe
from ccid.link.reader_cards import Cards
from ccid.link.slot_commands import Commands, SlotCommands

if TYPE_CHECKING:
    from ccid.known.quirks import Quirks
    from ccid.transport import ReaderInfo, Transport


class SharedTurns:
    """The lock of a device whose interfaces cannot execute commands at the same time.

    Attributes:
        lock: Held while a command to any interface of the device is under way.
    """

    def __init__(self) -> None:
        self.lock = new_rlock()


_turns: WeakValueDictionary[str, SharedTurns] = WeakValueDictionary()
_turns_lock = new_rlock()


def _renew_turns() -> None:
    """New locks for a forked child: a thread of the parent may hold the old ones."""
    global _turns_lock
    _turns_lock = new_rlock()
    _turns.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_turns)


def shared_turns(info: ReaderInfo, quirks: Quirks) -> SharedTurns | None:
    """The lock that the interfaces of a device share (quirk ``interfaces-take-turns``).

    Args:
        info: One interface of the device.
        quirks: The quirks of that interface.

    Returns:
        The lock; None if the interfaces of the device work independently. The caller must keep the
        object as long as the reader exists: only a weak reference to it is kept here.
    """
    if not quirks.interfaces_take_turns:
        return None
    with _turns_lock:  # two threads may open two interfaces of a device at the same time
        return _turns.setdefault(device_of(info), SharedTurns())


def make_conversation(
    transport: Transport,
    info: ReaderInfo,
    descriptor: SmartCardDescriptor,
    cards: Cards,
    turns: SharedTurns | None,
    max_command_s: float | None,
) -> Conversation:
    """Make the conversation with a reader.

    An ICCD device has a plain :class:`Conversation` (control pipe only). A CCID reader has a
    :class:`Pipe`, or a :class:`SharedPipe` if several of its slots can be busy at the same time
    (bMaxCCIDBusySlots, USB CCID rev 1.1, 5.1).

    Args:
        transport: The open interface.
        info: The reader.
        descriptor: The class descriptor of the reader, corrected by its quirks.
        cards: The states of the cards in the reader.
        turns: The lock that the interfaces of the device share; None for none.
        max_command_s: Most seconds that a command may take; None for no limit.

    Returns:
        The conversation.

    Raises:
        ValueError, TypeError: ``max_command_s`` is no positive number.
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
        from ccid.link.shared_pipe import SharedPipe

        return SharedPipe(
            transport,
            slot_count=count,
            longest_message=descriptor.dwMaxCCIDMessageLength,
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
        longest_message=descriptor.dwMaxCCIDMessageLength,
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
    """Make the object that sends the commands of one slot.

    Args:
        conversation: The conversation that :func:`make_conversation` made.
        info: The reader.
        descriptor: The class descriptor of the reader, corrected by its quirks.
        slot: bSlot.
        quirks: The quirks of this slot.

    Returns:
        :class:`Commands` for a CCID reader; :class:`IccdA` or :class:`IccdB` for an ICCD device of
        version A or B.
    """
    if isinstance(conversation, Pipe):
        commands = Commands(conversation, slot, quirks)
        if quirks.presence_of_interface is not None:
            commands.detector = Neighbour(info, quirks.presence_of_interface)
        return commands
    room = descriptor.dwMaxCCIDMessageLength - MESSAGE_HEADER
    is_a = info.reader.protocol is InterfaceProtocol.ICCD_A
    return (IccdA if is_a else IccdB)(conversation, room, quirks)


class Neighbour:
    """Another interface of the same device, which detects the card for this interface (quirk
    ``presence-of-interface``).

    Args:
        info: The reader whose card the other interface detects.
        interface: bInterfaceNumber of the other interface.
    """

    def __init__(self, info: ReaderInfo, interface: int) -> None:
        self._place = (device_of(info), interface)

    def __call__(self) -> SlotCommands | None:
        """The commands of the first slot of the other interface; None if this process does not
        have that interface open."""
        for reader in opened.there():
            info = reader.info
            place = (device_of(info), info.interface_number)
            is_open = reader.transport.dead is None and not reader.is_closed
            if place == self._place and is_open:
                return reader.slots[0].commands
        return None
