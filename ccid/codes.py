"""The coded values of USB CCID rev 1.1, each with its name in the specification.

A table of texts, if there is one, follows the enumeration that it explains.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

# USB ------------------------------------------------------------------------------------------

DIRECTION_IN = 0x80
"""Bit 7 of bEndpointAddress and bmRequestType: device to host (USB 2.0, 9.3 and 9.6.6)."""
GET_DESCRIPTOR = 0x06
"""bRequest of a standard request (USB 2.0, 9.4.3)."""
ENGLISH_US = 0x0409
"""Language of string descriptors and of a PIN pad's texts (USB LANGIDs 1.0)."""

# Descriptors (5.1) ----------------------------------------------------------------------------

CLASS_SMART_CARD = 0x0B
"""bInterfaceClass of a CCID interface."""
CLASS_VENDOR = 0xFF
"""bInterfaceClass of a proprietary interface; some readers older than the CCID class use it."""
CCID_DESCRIPTOR_TYPE = 0x21
"""bDescriptorType of the smart card device class descriptor."""
CCID_DESCRIPTOR_LENGTH = 54
"""bLength of the smart card device class descriptor."""


class InterfaceProtocol(IntEnum):
    """bInterfaceProtocol of a smart card interface (USB ICCD rev 1.0, 5.3 for 1 and 2)."""

    CCID = 0
    ICCD_A = 1
    ICCD_B = 2


INTERFACE_PROTOCOL_TEXT = {
    InterfaceProtocol.CCID: "CCID: bulk-OUT and bulk-IN, optional interrupt-IN",
    InterfaceProtocol.ICCD_A: "ICCD version A: control transfers, optional interrupt-IN",
    InterfaceProtocol.ICCD_B: "ICCD version B: control transfers, optional interrupt-IN",
}


class VoltageSupport(IntFlag):
    """bVoltageSupport."""

    V5_0 = 0x01
    V3_0 = 0x02
    V1_8 = 0x04


VOLTAGE_TEXT = {
    VoltageSupport.V5_0: "5.0 V",
    VoltageSupport.V3_0: "3.0 V",
    VoltageSupport.V1_8: "1.8 V",
}


class Protocols(IntFlag):
    """dwProtocols, low word."""

    T0 = 0x01
    T1 = 0x02


class Protocol(IntEnum):
    """A transmission protocol, by its number T (ISO/IEC 7816-3:2006 8.2.3) and bProtocolNum."""

    T0 = 0
    T1 = 1

    def __str__(self) -> str:
        return f"T={self.value}"


class SynchProtocols(IntFlag):
    """dwSynchProtocols."""

    TWO_WIRE = 0x01
    THREE_WIRE = 0x02
    I2C = 0x04


SYNCH_TEXT = {
    SynchProtocols.TWO_WIRE: "2-wire protocol",
    SynchProtocols.THREE_WIRE: "3-wire protocol",
    SynchProtocols.I2C: "I2C protocol",
}


class Mechanical(IntFlag):
    """dwMechanical."""

    ACCEPT = 0x01
    EJECT = 0x02
    CAPTURE = 0x04
    LOCK_UNLOCK = 0x08


MECHANICAL_TEXT = {
    Mechanical.ACCEPT: "Card accept mechanism",
    Mechanical.EJECT: "Card ejection mechanism",
    Mechanical.CAPTURE: "Card capture mechanism",
    Mechanical.LOCK_UNLOCK: "Card lock/unlock mechanism",
}


class Features(IntFlag):
    """dwFeatures, apart from the level of exchange."""

    AUTO_PARAMETERS = 0x0000_0002
    AUTO_ACTIVATION = 0x0000_0004
    AUTO_VOLTAGE = 0x0000_0008
    AUTO_CLOCK = 0x0000_0010
    AUTO_BAUD_RATE = 0x0000_0020
    AUTO_NEGOTIATION = 0x0000_0040
    AUTO_PPS = 0x0000_0080
    CLOCK_STOP = 0x0000_0100
    NAD_OTHER_THAN_ZERO = 0x0000_0200
    AUTO_IFSD = 0x0000_0400
    TPDU_LEVEL = 0x0001_0000
    SHORT_APDU_LEVEL = 0x0002_0000
    EXTENDED_APDU_LEVEL = 0x0004_0000
    USB_WAKE_UP = 0x0010_0000


FEATURES_TEXT = {
    Features.AUTO_PARAMETERS: "Automatic parameter configuration based on ATR data",
    Features.AUTO_ACTIVATION: "Automatic activation of ICC on inserting",
    Features.AUTO_VOLTAGE: "Automatic ICC voltage selection",
    Features.AUTO_CLOCK: "Automatic ICC clock frequency change",
    Features.AUTO_BAUD_RATE: "Automatic baud rate change",
    Features.AUTO_NEGOTIATION: "Automatic parameters negotiation made by the CCID",
    Features.AUTO_PPS: "Automatic PPS made by the CCID",
    Features.CLOCK_STOP: "CCID can set ICC in clock stop mode",
    Features.NAD_OTHER_THAN_ZERO: "NAD value other than 00 accepted (T=1)",
    Features.AUTO_IFSD: "Automatic IFSD exchange as first exchange (T=1)",
    Features.TPDU_LEVEL: "TPDU level exchange",
    Features.SHORT_APDU_LEVEL: "Short APDU level exchange",
    Features.EXTENDED_APDU_LEVEL: "Short and extended APDU level exchange",
    Features.USB_WAKE_UP: "USB wake up signaling on card insertion and removal",
}

EXCHANGE_LEVEL_MASK = 0x0007_0000
"""The bits of dwFeatures for the level of exchange."""


class ExchangeLevel(IntEnum):
    """The level of exchange, bits 16 to 18 of dwFeatures."""

    CHARACTER = 0x0_0000
    TPDU = 0x1_0000
    SHORT_APDU = 0x2_0000
    EXTENDED_APDU = 0x4_0000


BLOCKWISE = (ExchangeLevel.CHARACTER, ExchangeLevel.TPDU)
"""The levels at which the host runs the protocol of the card: an XfrBlock carries a TPDU or a T=1
block, or characters of these."""
EXCHANGE_LEVEL_TEXT = {
    ExchangeLevel.CHARACTER: "character",
    ExchangeLevel.TPDU: "TPDU",
    ExchangeLevel.SHORT_APDU: "short APDU",
    ExchangeLevel.EXTENDED_APDU: "short and extended APDU",
}


class PinSupport(IntFlag):
    """bPINSupport."""

    VERIFICATION = 0x01
    MODIFICATION = 0x02


PIN_SUPPORT_TEXT = {
    PinSupport.VERIFICATION: "PIN Verification supported",
    PinSupport.MODIFICATION: "PIN Modification supported",
}


# Class-specific requests (5.3) ----------------------------------------------------------------


class ClassRequest(IntEnum):
    """bRequest of the class-specific requests."""

    ABORT = 0x01
    GET_CLOCK_FREQUENCIES = 0x02
    GET_DATA_RATES = 0x03


class IccdRequest(IntEnum):
    """bRequest of an ICCD device's requests (USB ICCD rev 1.0, 6.4)."""

    ICC_POWER_ON = 0x62
    ICC_POWER_OFF = 0x63
    XFR_BLOCK = 0x65
    DATA_BLOCK = 0x6F
    SLOT_STATUS = 0x81
    GET_ICC_STATUS = 0xA0


# Messages (6.1, 6.2, 6.3) ---------------------------------------------------------------------


class IccStatus(IntEnum):
    """bmICCStatus, bits 0 and 1 of bStatus."""

    ACTIVE = 0
    INACTIVE = 1
    ABSENT = 2
    RFU = 3


class CommandStatus(IntEnum):
    """bmCommandStatus, bits 6 and 7 of bStatus."""

    PROCESSED = 0
    FAILED = 1
    TIME_EXTENSION = 2
    RFU = 3


class SlotError(IntEnum):
    """bError of a failed command (table 6.2-2)."""

    CMD_NOT_SUPPORTED = 0x00
    CMD_SLOT_BUSY = 0xE0
    PIN_CANCELLED = 0xEF
    PIN_TIMEOUT = 0xF0
    BUSY_WITH_AUTO_SEQUENCE = 0xF2
    DEACTIVATED_PROTOCOL = 0xF3
    PROCEDURE_BYTE_CONFLICT = 0xF4
    ICC_CLASS_NOT_SUPPORTED = 0xF5
    ICC_PROTOCOL_NOT_SUPPORTED = 0xF6
    BAD_ATR_TCK = 0xF7
    BAD_ATR_TS = 0xF8
    HW_ERROR = 0xFB
    XFR_OVERRUN = 0xFC
    XFR_PARITY_ERROR = 0xFD
    ICC_MUTE = 0xFE
    CMD_ABORTED = 0xFF


SLOT_ERROR_TEXT = {
    SlotError.CMD_NOT_SUPPORTED: "the reader does not support this command",
    SlotError.CMD_SLOT_BUSY: "the slot is busy with an earlier command",
    SlotError.PIN_CANCELLED: "the PIN entry was cancelled at the reader",
    SlotError.PIN_TIMEOUT: "the PIN was not entered in time",
    SlotError.BUSY_WITH_AUTO_SEQUENCE: "the reader's automatic sequence is under way",
    SlotError.DEACTIVATED_PROTOCOL: "this protocol is deactivated",
    SlotError.PROCEDURE_BYTE_CONFLICT: "the card sent an unexpected procedure byte",
    SlotError.ICC_CLASS_NOT_SUPPORTED: "the card's operating class is not supported",
    SlotError.ICC_PROTOCOL_NOT_SUPPORTED: "the card's protocol is not supported",
    SlotError.BAD_ATR_TCK: "the check byte TCK of the ATR is wrong",
    SlotError.BAD_ATR_TS: "the first byte TS of the ATR is wrong",
    SlotError.HW_ERROR: "all-inclusive hardware error",
    SlotError.XFR_OVERRUN: "overrun error while talking to the card",
    SlotError.XFR_PARITY_ERROR: "parity error while talking to the card",
    SlotError.ICC_MUTE: "the card does not answer",
    SlotError.CMD_ABORTED: "the command was aborted",
}


def slot_error_text(bError: int) -> str:
    """The meaning of bError of a failed command in words (USB CCID rev 1.1, table 6.2-2)."""
    if 1 <= bError <= 0x7F:
        return f"byte {bError} of the command is wrong or not supported"
    try:
        code = SlotError(bError)
    except ValueError:
        kind = "reader's own" if 0x81 <= bError <= 0xC0 else "reserved"
        return f"{kind} error code 0x{bError:02X}"
    return f"{code.name}, {SLOT_ERROR_TEXT[code]}"


class PowerSelect(IntEnum):
    """bPowerSelect of PC_to_RDR_IccPowerOn (6.1.1)."""

    AUTOMATIC = 0
    V5_0 = 1
    V3_0 = 2
    V1_8 = 3


class ClockStatus(IntEnum):
    """bClockStatus of RDR_to_PC_SlotStatus (6.2.2)."""

    RUNNING = 0
    STOPPED_LOW = 1
    STOPPED_HIGH = 2
    STOPPED_UNKNOWN = 3


class ClockCommand(IntEnum):
    """bClockCommand of PC_to_RDR_IccClock (6.1.9)."""

    RESTART = 0
    STOP = 1


class MechanicalFunction(IntEnum):
    """bFunction of PC_to_RDR_Mechanical (6.1.12)."""

    ACCEPT = 1
    EJECT = 2
    CAPTURE = 3
    LOCK = 4
    UNLOCK = 5


class PinOperation(IntEnum):
    """bPINOperation of PC_to_RDR_Secure (6.1.11)."""

    VERIFICATION = 0
    MODIFICATION = 1
    TRANSFER = 2
    WAIT_ICC_RESPONSE = 3
    CANCEL = 4
    RESEND_LAST_BLOCK = 5
    SEND_NEXT_PART = 6


class HardwareErrorCode(IntFlag):
    """bHardwareErrorCode of RDR_to_PC_HardwareError (6.3.2)."""

    OVERCURRENT = 0x01


class Level(IntEnum):
    """wLevelParameter of XfrBlock at extended APDU level (6.1.4): the part of the command APDU in
    this block."""

    WHOLE = 0x0000
    BEGINS = 0x0001
    ENDS = 0x0002
    CONTINUES = 0x0003
    CONTINUE_RESPONSE = 0x0010


class Chain(IntEnum):
    """bChainParameter of RDR_to_PC_DataBlock (6.2.1): the part of the response APDU in this
    block."""

    WHOLE = 0x00
    BEGINS = 0x01
    ENDS = 0x02
    CONTINUES = 0x03
    COMMAND_EXPECTED = 0x10
