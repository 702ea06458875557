"""What a reply that is no success means: an error of :mod:`ccid.errors`; pure."""

from __future__ import annotations

from ccid.codes import Chain, CommandStatus, IccStatus, SlotError, slot_error_text
from ccid.errors import (
    CardAbsent,
    CardMute,
    CcidError,
    CommandCancelled,
    CommandFailed,
    MalformedMessage,
    ProtocolError,
    SlotBusy,
    UnsupportedByReader,
)


def reply_error(
    name: str, slot: int, length: int, bSeq: int, bStatus: int, bError: int
) -> CcidError:
    """The error for a reply that says "failed" (USB CCID rev 1.1, table 6.2-2), or that brings
    ``length`` bytes where a response APDU is due."""
    icc = IccStatus(bStatus & 0x03)
    kind: type[CcidError]
    if bStatus >> 6 != CommandStatus.FAILED:
        kind = CardAbsent if icc is not IccStatus.ACTIVE else ProtocolError
        what = f"{length} bytes in answer to an APDU"
    else:
        kind, what = _kind(icc, bError), slot_error_text(bError)
    if kind is CardAbsent:
        what = "there is no card"
    error = kind(
        f"{name}: slot {slot}: {what}",
        reader=name,
        slot=slot,
        bSeq=bSeq,
        bStatus=bStatus,
        bError=bError,
    )
    if isinstance(error, ProtocolError):
        error.may_have_executed = True
    return error


def _kind(icc: IccStatus, bError: int) -> type[CcidError]:
    """Which error a failed reply is."""
    match bError:
        case SlotError.CMD_ABORTED:
            return CommandCancelled
        case SlotError.CMD_SLOT_BUSY | SlotError.BUSY_WITH_AUTO_SEQUENCE:
            return SlotBusy
        case SlotError.CMD_NOT_SUPPORTED:
            return UnsupportedByReader
        case _ if icc is IccStatus.ABSENT:
            return CardAbsent
        case SlotError.ICC_MUTE:
            return CardMute
    return CommandFailed


def chain_parameter(bChainParameter: int) -> Chain:
    """bChainParameter as its enumeration.

    Raises:
        MalformedMessage: A value that 6.2.1 does not have.
    """
    try:
        return Chain(bChainParameter)
    except ValueError:
        raise MalformedMessage(
            f"bChainParameter 0x{bChainParameter:02X} has no meaning", field="bChainParameter"
        ) from None
