"""PIN entry at the reader: a command APDU by PC_to_RDR_Secure (USB CCID rev 1.1, 6.1.11).

At APDU level, and with T=0, the reader takes the APDU as it is. With T=1 at TPDU level the host
runs the protocol: bTeoPrologue of the structure holds the prologue of the I-block, and the reader
builds the rest of the block. The blocks after the I-block (waiting time extensions, repeated
blocks) go by XfrBlock.
"""

from __future__ import annotations

from dataclasses import replace

from ccid.codec.messages.structures import PinModification, PinVerification
from ccid.codes import SlotError
from ccid.errors import CommandFailed, ProtocolError, UnsupportedByReader
from ccid.iso7816 import t1
from ccid.iso7816.protocol_runner import run
from ccid.link.slot_commands import SlotCommands
from ccid.pin.pad_structures import entry_timeout_s, operation_of
from ccid.session.exchange.agreement import Agreement
from ccid.session.exchange.block_links import BlockLink

TIMEOUT_SW, CANCELLED_SW = b"\x64\x00", b"\x64\x01"
"""The response APDUs for a PIN that was not entered: time-out, and Cancel key (PC/SC part 10,
2.5.7)."""

PinStructure = PinVerification | PinModification


def enter_pin(
    commands: SlotCommands, agreement: Agreement | None, structure: PinStructure
) -> bytes:
    """Have the user enter the PIN at the reader, and the reader send the command APDU to the card.

    Args:
        commands: The commands of the slot.
        agreement: The agreement with the card; None if no card is connected.
        structure: abPINDataStructure: how the PIN is entered, and the command APDU.

    Returns:
        The response APDU; 6400 if the PIN was not entered in time, 6401 if the user cancelled.

    Raises:
        UnsupportedByReader: The reader has no PIN pad, or the command APDU does not fit into one
            block of T=1.
        MalformedMessage: ``structure`` is no structure, or a value does not fit its field.
        CommandFailed: The reader refuses the structure; bError is the offset of the wrong field.
        CardAbsent, CardMute, ProtocolError: As for any command.
    """
    try:
        return commands.perform(
            lambda: _entered(commands, agreement, structure),
            session=None if agreement is None else agreement.session,
        )
    except CommandFailed as error:
        if error.bError == SlotError.PIN_CANCELLED:
            return CANCELLED_SW
        if error.bError == SlotError.PIN_TIMEOUT:
            return TIMEOUT_SW
        raise


def _entered(commands: SlotCommands, agreement: Agreement | None, structure: PinStructure) -> bytes:
    machine = None if agreement is None else agreement.t1
    if agreement is None or machine is None:
        return _secure(commands, structure)
    try:
        link = _PinLink(commands, agreement, structure)
        return run(machine.exchange(structure.abPINApdu), link)
    except CommandFailed as error:
        if error.bError in (SlotError.PIN_CANCELLED, SlotError.PIN_TIMEOUT):
            machine.not_sent()
        raise


def _secure(commands: SlotCommands, structure: PinStructure) -> bytes:
    timeout_s = entry_timeout_s(structure.bTimeOut)
    return commands.secure(operation_of(structure), structure, timeout_s=timeout_s)[0]


class _PinLink:
    """T=1 at TPDU level: the only I-block goes by PC_to_RDR_Secure, every other block by
    XfrBlock."""

    def __init__(
        self, commands: SlotCommands, agreement: Agreement, structure: PinStructure
    ) -> None:
        self._commands = commands
        self._structure = structure
        self._link = BlockLink(commands, agreement)
        self._is_sent = False

    def __call__(self, block: t1.Block) -> bytes | t1.LinkError:
        pcb = block.data[1]
        if pcb >= t1.R_BLOCK:
            return self._link(block)
        if self._is_sent:
            raise ProtocolError(
                f"{self._commands.name}: the card asks for the PIN's block again, and it is the "
                f"reader that has it",
                may_have_executed=True,
                reader=self._commands.name,
                slot=self._commands.slot,
            )
        if pcb & t1.MORE:
            raise UnsupportedByReader(
                f"{self._commands.name}: a command with a PIN of {len(self._structure.abPINApdu)} "
                f"bytes does not fit into one block",
                reader=self._commands.name,
                slot=self._commands.slot,
            )
        self._is_sent = True
        prologue = block.data[: t1.PROLOGUE]
        return _secure(self._commands, replace(self._structure, bTeoPrologue=prologue))
