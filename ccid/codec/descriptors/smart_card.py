"""The smart card device class descriptor (USB CCID rev 1.1, 5.1; USB ICCD rev 1.0, 5.4)."""

from __future__ import annotations

from ccid.codec.declaration import Declared, declared, wire
from ccid.codec.layouts import Byte, Const, Int16ul, Int32ul, OneOf
from ccid.codes import (
    CCID_DESCRIPTOR_LENGTH,
    CCID_DESCRIPTOR_TYPE,
    CLASS_VENDOR,
    EXCHANGE_LEVEL_MASK,
    ExchangeLevel,
    Features,
    Mechanical,
    PinSupport,
    Protocols,
    SynchProtocols,
    VoltageSupport,
)
from ccid.errors import MalformedDescriptor

DESCRIPTOR_TYPES = (CCID_DESCRIPTOR_TYPE, CLASS_VENDOR)
"""bDescriptorType: 0x21, or 0xFF for readers with a proprietary interface."""

LEVELS = {int(level): level for level in ExchangeLevel}
"""The levels of exchange by their bits in dwFeatures."""


@declared
class SmartCardDescriptor(Declared):
    """The smart card device class descriptor, 54 bytes. Clocks are in kHz, data rates in bit/s,
    lengths in bytes."""

    error = MalformedDescriptor

    bLength: int = wire(Const(CCID_DESCRIPTOR_LENGTH, Byte), default=CCID_DESCRIPTOR_LENGTH)
    bDescriptorType: int = wire(OneOf(Byte, DESCRIPTOR_TYPES), default=CCID_DESCRIPTOR_TYPE)
    bcdCCID: int = wire(Int16ul, default=0x0110)
    bMaxSlotIndex: int = wire(Byte, default=0)
    bVoltageSupport: int = wire(Byte, default=0x07)
    dwProtocols: int = wire(Int32ul, default=0x03)
    dwDefaultClock: int = wire(Int32ul, default=4000)
    dwMaximumClock: int = wire(Int32ul, default=4000)
    bNumClockSupported: int = wire(Byte, default=0)
    dwDataRate: int = wire(Int32ul, default=10752)
    dwMaxDataRate: int = wire(Int32ul, default=344086)
    bNumDataRatesSupported: int = wire(Byte, default=0)
    dwMaxIFSD: int = wire(Int32ul, default=254)
    dwSynchProtocols: int = wire(Int32ul, default=0)
    dwMechanical: int = wire(Int32ul, default=0)
    dwFeatures: int = wire(Int32ul)
    dwMaxCCIDMessageLength: int = wire(Int32ul, default=271)
    bClassGetResponse: int = wire(Byte, default=0xFF)
    bClassEnvelope: int = wire(Byte, default=0xFF)
    wLcdLayout: int = wire(Int16ul, default=0)
    bPINSupport: int = wire(Byte, default=0)
    bMaxCCIDBusySlots: int = wire(Byte, default=1)

    @property
    def slot_count(self) -> int:
        """Number of slots: bMaxSlotIndex + 1."""
        return self.bMaxSlotIndex + 1

    @property
    def features(self) -> Features:
        """dwFeatures as flags."""
        return Features(self.dwFeatures)

    @property
    def exchange_level(self) -> ExchangeLevel | None:
        """The level of exchange; None if dwFeatures has more than one bit for the level."""
        # On plain numbers: an IntFlag takes microseconds for an "and", and every APDU needs this.
        return LEVELS.get(int(self.dwFeatures) & EXCHANGE_LEVEL_MASK)

    @property
    def protocols(self) -> Protocols:
        """dwProtocols as flags."""
        return Protocols(self.dwProtocols)

    @property
    def voltages(self) -> VoltageSupport:
        """bVoltageSupport as flags."""
        return VoltageSupport(self.bVoltageSupport)

    @property
    def synch_protocols(self) -> SynchProtocols:
        """dwSynchProtocols as flags."""
        return SynchProtocols(self.dwSynchProtocols)

    @property
    def mechanical(self) -> Mechanical:
        """dwMechanical as flags."""
        return Mechanical(self.dwMechanical)

    @property
    def pin_support(self) -> PinSupport:
        """bPINSupport as flags."""
        return PinSupport(self.bPINSupport)

    @property
    def lcd_lines(self) -> int:
        """Lines of the display; 0 without a display (wLcdLayout, high byte)."""
        return self.wLcdLayout >> 8

    @property
    def lcd_characters(self) -> int:
        """Characters on a line of the display (wLcdLayout, low byte)."""
        return self.wLcdLayout & 0xFF
