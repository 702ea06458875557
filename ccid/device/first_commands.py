"""The first commands to a reader: GetSlotStatus, until the reader answers.

An earlier process may have left the reader in the middle of a command, or with replies that the
process never read. A power cut may have left the reader in a state in which only IccPowerOff helps.
"""

from __future__ import annotations

import time

from ccid.errors import (
    CcidError,
    CommandFailed,
    MalformedMessage,
    SlotBusy,
    TransportError,
    TransportStall,
    TransportTimeout,
    UnsupportedByReader,
)
from ccid.link.conversation import WAKING_S, Conversation
from ccid.link.slot_commands import SlotCommands


def wake(conversation: Conversation, commands: SlotCommands, at_least_s: float) -> None:
    """Send the first commands to a reader, within a time limit of their own.

    Replies to commands of an earlier process are dropped meanwhile. A reader that fails the first
    GetSlotStatus (USB CCID rev 1.1, 6.1.3) gets a second. Some readers refuse GetSlotStatus after a
    power cut until the card is powered off: they get IccPowerOff (6.1.2) before the second.

    Args:
        conversation: The conversation with the reader.
        commands: The commands of the first slot.
        at_least_s: Seconds to wait for the first reply at least (quirk ``first-timeout-s``).

    Raises:
        SlotBusy: The reader does not end a command of an earlier process.
        CommandFailed, UnsupportedByReader: The reader goes on refusing GetSlotStatus.
        TransportTimeout: The reader does not answer.
        ReaderRemoved, TransportError, MalformedMessage: The reader is gone, or answers wrongly.
    """
    usual_s = max(at_least_s, commands.status_timeout_s)
    conversation.latest = time.monotonic() + max(WAKING_S, 3 * usual_s)
    try:
        try:
            commands.slot_status(at_least_s)
            return
        except (TransportTimeout, TransportStall, MalformedMessage):
            pass
        except (CommandFailed, UnsupportedByReader) as error:
            _power_off(conversation, commands, error)
        try:
            commands.slot_status(at_least_s)
        except (TransportError, MalformedMessage, CommandFailed, UnsupportedByReader) as error:
            _power_off(conversation, commands, error)
            commands.slot_status(at_least_s)
    finally:
        conversation.latest = None


def _power_off(conversation: Conversation, commands: SlotCommands, error: CcidError) -> None:
    """Send IccPowerOff, and ignore a refusal.

    Raises:
        CcidError: ``error``, if IccPowerOff cannot help: ``error`` says that the slot is busy, or
            IccPowerOff gets no reply either. Or the reader is gone.
    """
    if isinstance(error, SlotBusy):
        raise error
    try:
        commands.power_off()
    except TransportTimeout:
        raise error from None
    except CcidError as other:
        if conversation.transport.dead is not None:
            raise other
