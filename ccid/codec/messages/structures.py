"""Structures in messages: protocol parameters and PIN data (USB CCID rev 1.1, 6.1.7, 6.1.11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccid.codec.declaration import Declared, declared, wire
from ccid.codec.layouts import Byte, Bytes, GreedyBytes, Int16ul, Layout, Structure
from ccid.codes import PinOperation, Protocol
from ccid.errors import MalformedMessage


@declared
class ProtocolDataT0(Declared):
    """abProtocolDataStructure for T=0 (USB CCID rev 1.1, 6.1.7)."""

    error = MalformedMessage

    bmFindexDindex: int = wire(Byte, default=0x11)
    bmTCCKST0: int = wire(Byte, default=0x00)
    bGuardTimeT0: int = wire(Byte, default=0x00)
    bWaitingIntegerT0: int = wire(Byte, default=0x0A)
    bClockStop: int = wire(Byte, default=0x00)


@declared
class ProtocolDataT1(Declared):
    """abProtocolDataStructure for T=1 (USB CCID rev 1.1, 6.1.7)."""

    error = MalformedMessage

    bmFindexDindex: int = wire(Byte, default=0x11)
    bmTCCKST1: int = wire(Byte, default=0x10)
    bGuardTimeT1: int = wire(Byte, default=0x00)
    bmWaitingIntegersT1: int = wire(Byte, default=0x4D)
    bClockStop: int = wire(Byte, default=0x00)
    bIFSC: int = wire(Byte, default=0x20)
    bNadValue: int = wire(Byte, default=0x00)


@declared
class PinVerification(Declared):
    """abPINDataStructure of a verification, without bPINOperation (6.1.11.1)."""

    error = MalformedMessage

    bTimeOut: int = wire(Byte, default=0)
    bmFormatString: int = wire(Byte)
    bmPINBlockString: int = wire(Byte)
    bmPINLengthFormat: int = wire(Byte)
    wPINMaxExtraDigit: int = wire(Int16ul)
    bEntryValidationCondition: int = wire(Byte)
    bNumberMessage: int = wire(Byte)
    wLangId: int = wire(Int16ul)
    bMsgIndex: int = wire(Byte, default=0)
    bTeoPrologue: bytes = wire(Bytes(3), default=bytes(3))
    abPINApdu: bytes = wire(GreedyBytes, default=b"", secret=True)


_SECOND_INDEX = Layout(lambda c: c.If(c.this.bNumberMessage != 0, c.Byte))
_THIRD_INDEX = Layout(lambda c: c.If(c.this.bNumberMessage >= 3, c.Byte))


@declared
class PinModification(Declared):
    """abPINDataStructure of a modification, without bPINOperation (6.1.11.2).

    bMsgIndex2 is on the wire unless bNumberMessage is 0; bMsgIndex3 is on the wire if
    bNumberMessage is 3 or 0xFF.
    """

    error = MalformedMessage

    bTimeOut: int = wire(Byte, default=0)
    bmFormatString: int = wire(Byte)
    bmPINBlockString: int = wire(Byte)
    bmPINLengthFormat: int = wire(Byte)
    bInsertionOffsetOld: int = wire(Byte)
    bInsertionOffsetNew: int = wire(Byte)
    wPINMaxExtraDigit: int = wire(Int16ul)
    bConfirmPIN: int = wire(Byte)
    bEntryValidationCondition: int = wire(Byte)
    bNumberMessage: int = wire(Byte)
    wLangId: int = wire(Int16ul)
    bMsgIndex1: int = wire(Byte, default=0)
    bMsgIndex2: int | None = wire(_SECOND_INDEX, default=None)
    bMsgIndex3: int | None = wire(_THIRD_INDEX, default=None)
    bTeoPrologue: bytes = wire(Bytes(3), default=bytes(3))
    abPINApdu: bytes = wire(GreedyBytes, default=b"", secret=True)


@declared
class PinModificationAllIndexes(PinModification):
    """A modification with bMsgIndex1 to bMsgIndex3 for every value of bNumberMessage. Some readers
    expect this form, against 6.1.11.2."""

    bMsgIndex2: int | None = wire(Byte, default=0)
    bMsgIndex3: int | None = wire(Byte, default=0)


ProtocolData = ProtocolDataT0 | ProtocolDataT1 | bytes
PinData = PinVerification | PinModification | bytes


class _Typed(Structure):
    """A structure whose type another field names; bytes of an unknown type stay bytes."""

    def encode(self, value: Any, values: Mapping[str, Any], field: str) -> bytes | None:
        if not isinstance(value, bytes | Declared):
            return None
        data = value if isinstance(value, bytes) else value.build()
        expected = type(self.decode(data, values))
        if not isinstance(value, expected):
            raise MalformedMessage(
                f"{type(value).__name__} where these {len(data)} bytes would be "
                f"{expected.__name__}",
                field=field,
            )
        return data


class ProtocolDataStructure(_Typed):
    """abProtocolDataStructure; bProtocolNum and the length name the type.

    A reader may send a structure whose length belongs to the other protocol, or, when the reader
    refuses, none. Such data stay bytes.
    """

    def decode(self, raw: bytes, values: Mapping[str, Any]) -> ProtocolData:
        match values["bProtocolNum"], len(raw):
            case Protocol.T0, 5:
                return ProtocolDataT0.parse(raw)
            case Protocol.T1, 7:
                return ProtocolDataT1.parse(raw)
        return raw


class PinDataStructure(_Typed):
    """abPINDataStructure; bPINOperation names the type."""

    def decode(self, raw: bytes, values: Mapping[str, Any]) -> PinData:
        match values["bPINOperation"]:
            case PinOperation.VERIFICATION:
                return PinVerification.parse(raw)
            case PinOperation.MODIFICATION:
                return PinModification.parse(raw)
        return raw
