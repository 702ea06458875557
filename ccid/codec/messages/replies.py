"""The response messages on bulk-IN (USB CCID rev 1.1, 6.2)."""

from __future__ import annotations

from ccid.codec.declaration import wire
from ccid.codec.layouts import Byte, Int32ul
from ccid.codec.messages.bulk_message import Reply, by_type, data, message
from ccid.codec.messages.structures import ProtocolData, ProtocolDataStructure, ProtocolDataT0


@message(0x80)
class RDR_to_PC_DataBlock(Reply):
    """6.2.1: the reply to IccPowerOn, XfrBlock and Secure. bChainParameter is a
    :class:`ccid.codes.Chain`."""

    bChainParameter: int = wire(Byte, default=0)
    abData: bytes = data()


@message(0x81)
class RDR_to_PC_SlotStatus(Reply):
    """6.2.2: the reply to IccPowerOff, GetSlotStatus, IccClock, T0APDU, Mechanical and Abort, and
    to any command that the reader does not know."""

    bClockStatus: int = wire(Byte, default=0)


@message(0x82)
class RDR_to_PC_Parameters(Reply):
    """6.2.3: the reply to GetParameters, ResetParameters and SetParameters."""

    bProtocolNum: int = wire(Byte, default=0)
    abProtocolDataStructure: ProtocolData = data(ProtocolDataStructure(), default=ProtocolDataT0())


@message(0x83)
class RDR_to_PC_Escape(Reply):
    """6.2.4: the reply to Escape."""

    bRFU: int = wire(Byte, default=0)
    abData: bytes = data()


@message(0x84)
class RDR_to_PC_DataRateAndClockFrequency(Reply):
    """6.2.5: the reply to SetDataRateAndClockFrequency: the clock (kHz) and the data rate (bit/s)
    in force."""

    bRFU: int = wire(Byte, default=0)
    dwClockFrequency: int = data(Int32ul, default=0, secret=False)
    dwDataRate: int = data(Int32ul, default=0, secret=False)


REPLIES: dict[int, type[Reply]] = {
    cls.bMessageType: cls
    for cls in (
        RDR_to_PC_DataBlock,
        RDR_to_PC_SlotStatus,
        RDR_to_PC_Parameters,
        RDR_to_PC_Escape,
        RDR_to_PC_DataRateAndClockFrequency,
    )
}
"""Every reply by bMessageType."""


def parse_reply(data: bytes) -> Reply:
    """The reply that one bulk-IN message encodes.

    Raises:
        MalformedMessage: ``data`` are no reply; ``field`` names the wrong field.
    """
    return by_type(REPLIES, "reply of a reader", data)
