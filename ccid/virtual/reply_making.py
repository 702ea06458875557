"""The replies of a virtual reader that more than one command has, pure.

USB CCID rev 1.1, 6.2: the reply that says that a command failed, RDR_to_PC_DataBlock, and the
message type of each command's reply.
"""

from __future__ import annotations

from ccid.codec.messages import (
    COMMANDS,
    Command,
    PC_to_RDR_Escape,
    PC_to_RDR_GetParameters,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_ResetParameters,
    PC_to_RDR_Secure,
    PC_to_RDR_SetDataRateAndClockFrequency,
    PC_to_RDR_SetParameters,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_DataBlock,
    RDR_to_PC_DataRateAndClockFrequency,
    RDR_to_PC_Escape,
    RDR_to_PC_Parameters,
    RDR_to_PC_SlotStatus,
    Reply,
)
from ccid.codec.messages.headers import DATA_BLOCK, reply_header
from ccid.codes import CommandStatus, IccStatus, SlotError

REPLY_TO: dict[type[Command], type[Reply]] = {
    PC_to_RDR_IccPowerOn: RDR_to_PC_DataBlock,
    PC_to_RDR_XfrBlock: RDR_to_PC_DataBlock,
    PC_to_RDR_GetParameters: RDR_to_PC_Parameters,
    PC_to_RDR_ResetParameters: RDR_to_PC_Parameters,
    PC_to_RDR_SetParameters: RDR_to_PC_Parameters,
    PC_to_RDR_Escape: RDR_to_PC_Escape,
    PC_to_RDR_Secure: RDR_to_PC_DataBlock,
    PC_to_RDR_SetDataRateAndClockFrequency: RDR_to_PC_DataRateAndClockFrequency,
}
"""Replies other than RDR_to_PC_SlotStatus."""


def failed(command: bytes, bError: int, icc: IccStatus) -> bytes:
    """The "failed" reply to a command message; RDR_to_PC_SlotStatus for an unknown command.

    Args:
        command: The message, at least its header.
        bError: USB CCID rev 1.1, table 6.2-2, or the offset of the wrong field.
        icc: bmICCStatus.
    """
    known = bError != SlotError.CMD_NOT_SUPPORTED and command[0] in COMMANDS
    kind = REPLY_TO.get(COMMANDS[command[0]], RDR_to_PC_SlotStatus) if known else None
    bStatus = CommandStatus.FAILED << 6 | icc
    head = RDR_to_PC_SlotStatus(bSlot=command[5], bSeq=command[6], bStatus=bStatus, bError=bError)
    return bytes([(kind or RDR_to_PC_SlotStatus).bMessageType]) + head.build()[1:]


def data_block(slot: int, bSeq: int, icc: IccStatus, chain: int, data: bytes) -> bytes:
    """RDR_to_PC_DataBlock of a successful command. Every APDU has one, so ``struct`` packs it."""
    return reply_header.pack(DATA_BLOCK, len(data), slot, bSeq, icc, 0, chain) + data
