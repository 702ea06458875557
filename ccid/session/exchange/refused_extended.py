"""Why an extended APDU does not get through, in words that help.

A reader at short APDU level, and T=0 everywhere but at extended APDU level, carry short APDUs
alone (USB CCID rev 1.1, 3.2; ISO/IEC 7816-3:2006 12.2). What a reader says of an extended one is
of no use: mostly that the card's protocol is not supported, which is not the matter.
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
"""bError by which a reader says that it does not take what it was sent, not that the card or the
line failed."""


def short_only(commands: SlotCommands, why: str, more: str = "") -> UnsupportedByReader:
    """The error for an extended APDU.

    Args:
        commands: The slot's.
        why: :data:`SHORT_LEVEL` or :data:`T0`.
        more: What else there is to say: the reader's answer, say.
    """
    return UnsupportedByReader(
        f"{commands.name}: slot {commands.slot}: {why}{f' ({more})' if more else ''}",
        reader=commands.name,
        slot=commands.slot,
    )


def explained(error: CcidError, apdu: Bytes, commands: SlotCommands, why: str) -> CcidError:
    """``error`` as a reader's answer to ``apdu``, or, where that is an extended APDU, one that
    says so.

    Args:
        error: What its answer was made into.
        apdu: The command.
        commands: The slot's.
        why: :data:`SHORT_LEVEL` or :data:`T0`.
    """
    is_there = (error.bStatus or 0) & 0x03 == IccStatus.ACTIVE
    if not is_extended(apdu) or not is_there or isinstance(error, SlotBusy):
        return error
    said = str(error).removeprefix(f"{commands.name}: slot {commands.slot}: ")
    made: CcidError = short_only(commands, why, f"the reader's answer: {said}")
    if isinstance(error, CardMute | CommandFailed) and error.bError not in REFUSALS:
        made = type(error)(str(made), reader=error.reader, slot=error.slot)
    made.bSeq, made.bStatus, made.bError = error.bSeq, error.bStatus, error.bError
    return made
