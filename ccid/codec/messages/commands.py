"""The command messages on bulk-OUT (USB CCID rev 1.1, 6.1)."""

from __future__ import annotations

from ccid.codec.declaration import wire
from ccid.codec.layouts import Byte, Int16ul, Int32ul
from ccid.codec.messages.bulk_message import Command, by_type, data, message, rfu
from ccid.codec.messages.structures import (
    PinData,
    PinDataStructure,
    ProtocolData,
    ProtocolDataStructure,
    ProtocolDataT0,
)
from ccid.codes import PinOperation


@message(0x62)
class PC_to_RDR_IccPowerOn(Command):
    """6.1.1: activate the card (cold or warm reset). The reply holds the ATR."""

    bPowerSelect: int = wire(Byte, default=0)
    abRFU: bytes = rfu(2)


@message(0x63)
class PC_to_RDR_IccPowerOff(Command):
    """6.1.2: deactivate the card."""

    abRFU: bytes = rfu(3)


@message(0x65)
class PC_to_RDR_GetSlotStatus(Command):
    """6.1.3: ask whether a card is in the slot and active."""

    abRFU: bytes = rfu(3)


@message(0x6F)
class PC_to_RDR_XfrBlock(Command):
    """6.1.4: a block for the card. wLevelParameter is a :class:`ccid.codes.Level`, or, at
    character level, the number of bytes expected from the card."""

    bBWI: int = wire(Byte, default=0)
    wLevelParameter: int = wire(Int16ul, default=0)
    abData: bytes = data()


@message(0x6C)
class PC_to_RDR_GetParameters(Command):
    """6.1.5: ask for the protocol parameters in force."""

    abRFU: bytes = rfu(3)


@message(0x6D)
class PC_to_RDR_ResetParameters(Command):
    """6.1.6: set the default protocol parameters of the reader."""

    abRFU: bytes = rfu(3)


@message(0x61)
class PC_to_RDR_SetParameters(Command):
    """6.1.7: set the protocol parameters."""

    bProtocolNum: int = wire(Byte, default=0)
    abRFU: bytes = rfu(2)
    abProtocolDataStructure: ProtocolData = data(ProtocolDataStructure(), default=ProtocolDataT0())


@message(0x6B)
class PC_to_RDR_Escape(Command):
    """6.1.8: a command that the manufacturer of the reader defines."""

    abRFU: bytes = rfu(3)
    abData: bytes = data()


@message(0x6E)
class PC_to_RDR_IccClock(Command):
    """6.1.9: stop or restart the clock of the card."""

    bClockCommand: int = wire(Byte, default=0)
    abRFU: bytes = rfu(2)


@message(0x6A)
class PC_to_RDR_T0APDU(Command):
    """6.1.10: set the class bytes of GET RESPONSE and ENVELOPE that the reader sends (T=0 at APDU
    level)."""

    bmChanges: int = wire(Byte, default=0)
    bClassGetResponse: int = wire(Byte, default=0)
    bClassEnvelope: int = wire(Byte, default=0)


@message(0x69)
class PC_to_RDR_Secure(Command):
    """6.1.11: PIN entry at the reader. The host never gets the PIN."""

    bBWI: int = wire(Byte, default=0)
    wLevelParameter: int = wire(Int16ul, default=0)
    bPINOperation: int = data(Byte, default=PinOperation.CANCEL, secret=False)
    abPINDataStructure: PinData = data(PinDataStructure(), default=b"")


@message(0x71)
class PC_to_RDR_Mechanical(Command):
    """6.1.12: accept, eject, capture, lock or unlock the card."""

    bFunction: int = wire(Byte, default=0)
    abRFU: bytes = rfu(2)


@message(0x72)
class PC_to_RDR_Abort(Command):
    """6.1.13: the second half of the ABORT pair. The first half is a control request (5.3.1)."""

    abRFU: bytes = rfu(3)


@message(0x73)
class PC_to_RDR_SetDataRateAndClockFrequency(Command):
    """6.1.14: set the data rate (bit/s) and the clock (kHz) of the slot."""

    abRFU: bytes = rfu(3)
    dwClockFrequency: int = data(Int32ul, default=0, secret=False)
    dwDataRate: int = data(Int32ul, default=0, secret=False)


COMMANDS: dict[int, type[Command]] = {
    cls.bMessageType: cls
    for cls in (
        PC_to_RDR_IccPowerOn,
        PC_to_RDR_IccPowerOff,
        PC_to_RDR_GetSlotStatus,
        PC_to_RDR_XfrBlock,
        PC_to_RDR_GetParameters,
        PC_to_RDR_ResetParameters,
        PC_to_RDR_SetParameters,
        PC_to_RDR_Escape,
        PC_to_RDR_IccClock,
        PC_to_RDR_T0APDU,
        PC_to_RDR_Secure,
        PC_to_RDR_Mechanical,
        PC_to_RDR_Abort,
        PC_to_RDR_SetDataRateAndClockFrequency,
    )
}
"""Every command by bMessageType."""


def parse_command(data: bytes) -> Command:
    """The command that one bulk-OUT message encodes.

    Raises:
        MalformedMessage: ``data`` are no command; ``field`` names the wrong field.
    """
    return by_type(COMMANDS, "command of the host", data)
