"""The messages of USB CCID rev 1.1, chapter 6: bytes to objects and back. Pure.

Each message is a class. Classes and fields have the names of the specification.

    >>> from ccid.codec.messages import PC_to_RDR_XfrBlock, parse_command
    >>> wire = PC_to_RDR_XfrBlock(bSeq=1, abData=bytes.fromhex("00A4040000")).build()
    >>> parse_command(wire)
    PC_to_RDR_XfrBlock(bSlot=0, bSeq=1, bBWI=0, wLevelParameter=0, abData=<5 bytes>)

- ``bulk_message``: the header of 10 bytes and the data that all bulk messages have.
- ``commands``: the command messages on bulk-OUT (6.1).
- ``replies``: the response messages on bulk-IN (6.2).
- ``events``: the event messages on interrupt-IN (6.3).
- ``structures``: protocol parameters (6.1.7) and PIN data (6.1.11) inside messages.
- ``headers``: the header as :class:`struct.Struct`, for the hot path of every APDU.
"""

from ccid.codec.messages.bulk_message import MESSAGE_HEADER, Command, Message, Reply
from ccid.codec.messages.commands import (
    COMMANDS,
    PC_to_RDR_Abort,
    PC_to_RDR_Escape,
    PC_to_RDR_GetParameters,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccClock,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_Mechanical,
    PC_to_RDR_ResetParameters,
    PC_to_RDR_Secure,
    PC_to_RDR_SetDataRateAndClockFrequency,
    PC_to_RDR_SetParameters,
    PC_to_RDR_T0APDU,
    PC_to_RDR_XfrBlock,
    parse_command,
)
from ccid.codec.messages.events import (
    RDR_to_PC_HardwareError,
    RDR_to_PC_NotifySlotChange,
    SlotChange,
    parse_event,
)
from ccid.codec.messages.replies import (
    REPLIES,
    RDR_to_PC_DataBlock,
    RDR_to_PC_DataRateAndClockFrequency,
    RDR_to_PC_Escape,
    RDR_to_PC_Parameters,
    RDR_to_PC_SlotStatus,
    parse_reply,
)
from ccid.codec.messages.structures import (
    PinModification,
    PinVerification,
    ProtocolDataT0,
    ProtocolDataT1,
)

__all__ = [
    "COMMANDS",
    "MESSAGE_HEADER",
    "REPLIES",
    "Command",
    "Message",
    "PC_to_RDR_Abort",
    "PC_to_RDR_Escape",
    "PC_to_RDR_GetParameters",
    "PC_to_RDR_GetSlotStatus",
    "PC_to_RDR_IccClock",
    "PC_to_RDR_IccPowerOff",
    "PC_to_RDR_IccPowerOn",
    "PC_to_RDR_Mechanical",
    "PC_to_RDR_ResetParameters",
    "PC_to_RDR_Secure",
    "PC_to_RDR_SetDataRateAndClockFrequency",
    "PC_to_RDR_SetParameters",
    "PC_to_RDR_T0APDU",
    "PC_to_RDR_XfrBlock",
    "PinModification",
    "PinVerification",
    "ProtocolDataT0",
    "ProtocolDataT1",
    "RDR_to_PC_DataBlock",
    "RDR_to_PC_DataRateAndClockFrequency",
    "RDR_to_PC_Escape",
    "RDR_to_PC_HardwareError",
    "RDR_to_PC_NotifySlotChange",
    "RDR_to_PC_Parameters",
    "RDR_to_PC_SlotStatus",
    "Reply",
    "SlotChange",
    "parse_command",
    "parse_event",
    "parse_reply",
]
