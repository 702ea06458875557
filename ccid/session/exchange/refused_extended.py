"""The error for an extended APDU that a reader does not transfer, with the reason and the cure.

A reader at short APDU level, and T=0 below extended APDU level, transfer only short APDUs (USB CCID
rev 1.1, 3.2; ISO/IEC 7816-3:2006 12.2). The bError of the reader for an extended APDU misleads:
mostly it says that the protocol of the card is not supported.
"""

from __future__ import annotations

from ccid.codes import IccStatus, SlotError
from ccid.errors import CardMute, CcidError, CommandFailed, SlotBusy, UnsupportedByReader
from ccid.iso7816.apdu import Bytes, is_extended
from ccid.link.slot_commands import SlotCommands

SHORT_LEVEL = (
    "this reader takes short APDUs only (dwFeatures: short APDU level), and this APDU is an "
    "extended one; send its data in parts by command chaining if the card has that (CLA bit 5), "
    "or use a reader at extended APDU level, or with T=1 one at TPDU level"
)
T0 = (
    "T=0 carries short APDUs only, and this APDU is an extended one; "
    "connect(auto_get_response=True) sends it by ENVELOPE, a card that has T=1 takes it with that, "
    "a reader at extended APDU level takes it as it is"
)
REFUSALS = {
    SlotError.CMD_NOT_SUPPORTED,
    SlotError.DEACTIVATED_PROTOCOL,
    SlotError.PROCEDURE_BYTE_CONFLICT,
    SlotError.ICC_CLASS_NOT_SUPPORTED,
    SlotError.ICC_PROTOCOL_NOT_SUPPORTED,
    *range(1, 0x80),
}
"""Values of bError by which a reader refuses a command. Other values report a failure of the card
or of the line."""


def short_only(commands: SlotCommands, why: str, more: str = "") -> UnsupportedByReader:
    """The error for an extended APDU; the caller raises the error.

    Args:
        commands: The commands of the slot.
        why: :data:`SHORT_LEVEL` or :data:`T0`.
        more: Further details, such as the answer of the reader.
    """
    return UnsupportedByReader(
        f"{commands.name}: slot {commands.slot}: {why}{f' ({more})' if more else ''}",
        reader=commands.name,
        slot=commands.slot,
    )


def explained(error: CcidError, apdu: Bytes, commands: SlotCommands, why: str) -> CcidError:
    """The error to raise for a failed XfrBlock with ``apdu``.

    Args:
        error: The error of the XfrBlock.
        apdu: The command APDU.
        commands: The commands of the slot.
        why: :data:`SHORT_LEVEL` or :data:`T0`.

    Returns:
        ``error``, or, for an extended APDU, an error that says why the APDU is not transferred.
    """
    is_active = (error.bStatus or 0) & 0x03 == IccStatus.ACTIVE
    if not is_extended(apdu) or not is_active or isinstance(error, SlotBusy):
        return error
    answer = str(error).removeprefix(f"{commands.name}: slot {commands.slot}: ")
    better: CcidError = short_only(commands, why, f"the reader's answer: {answer}")
    if isinstance(error, CardMute | CommandFailed) and error.bError not in REFUSALS:
        better = type(error)(str(better), reader=error.reader, slot=error.slot)
    better.bSeq, better.bStatus, better.bError = error.bSeq, error.bStatus, error.bError
    return better
