"""A virtual ICCD, a card that is a USB device itself: USB ICCD rev 1.0, versions A and B, pure.

There are no bulk endpoints; all data pass the control pipe (6.2 and 6.3):

===========================  =====================================  ==============================
Request                      Version A                              Version B
===========================  =====================================  ==============================
ICC_POWER_ON 62              in: the ATR                            out; the ATR by DATA_BLOCK
ICC_POWER_OFF 63             out                                    out
XFR_BLOCK 65                 out: header, or data, of a T=0 TPDU    out: an APDU or a part of one
DATA_BLOCK 6F                in: data, or SW1 SW2                   in: bResponseType and the rest
GET_ICC_STATUS A0            in: 1 byte                             --
SLOT_STATUS 81               --                                     in: 3 bytes
===========================  =====================================  ==============================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from ccid.codec.descriptors import ClassControl, SmartCardDescriptor
from ccid.codec.descriptors.class_requests import REQUEST_IN, REQUEST_OUT
from ccid.codec.descriptors.standard import TransferType
from ccid.codec.messages import PC_to_RDR_XfrBlock, RDR_to_PC_DataBlock
from ccid.codes import (
    CommandStatus,
    ExchangeLevel,
    Features,
    IccdRequest,
    InterfaceProtocol,
    Level,
    SlotError,
)
from ccid.virtual.cards.application import Answer, Mute
from ccid.virtual.cards.t0_card import HEADER
from ccid.virtual.ccid_function import EVENT_PACKET, LATE_LIMIT_S, CcidFunction
from ccid.virtual.contact_wire import Refused
from ccid.virtual.exchange_levels import Block
from ccid.virtual.journal import Journal
from ccid.virtual.usb_device import EndpointPlan, Stall
from ccid.virtual.virtual_slot import Card, LateReply, VirtualSlot

UNIT_S = 0.01
"""wDelayTime counts units of 10 ms (6.3)."""
MIN_DATA_BLOCK = 4
"""The smallest wLength of DATA_BLOCK in version B."""
RESERVED_FEATURE = 0x0000_0800
"""The bits of dwFeatures that an ICCD has (5.4)."""


class PhaseA(IntEnum):
    """What GET_ICC_STATUS returns (version A)."""

    COMMAND = 0x00
    """The card waits for a header."""
    DATA = 0x10
    """The card waits for the command's data, or has response data."""
    STATUS = 0x20
    """The card has SW1 SW2."""
    BUSY = 0x40
    MUTE = 0x80


class ResponseB(IntEnum):
    """bResponseType of DATA_BLOCK beside the chain parameters of CCID (version B)."""

    STATUS = 0x40
    """bStatus and bError follow."""
    POLLING = 0x80
    """wDelayTime follows: the host asks again after this time."""


def make_iccd_descriptor(version: InterfaceProtocol | int, **fields: Any) -> SmartCardDescriptor:
    """A usual class descriptor of an ICCD of this version; ``fields`` replace its values."""
    is_a = version == InterfaceProtocol.ICCD_A
    level = ExchangeLevel.CHARACTER if is_a else ExchangeLevel.SHORT_APDU
    values = {
        "bVoltageSupport": 0x01,
        "dwProtocols": 0x01 if is_a else 0x02,
        "dwDefaultClock": 3580,
        "dwMaximumClock": 3580,
        "dwDataRate": 9600,
        "dwMaxDataRate": 9600,
        "dwFeatures": Features.AUTO_NEGOTIATION | RESERVED_FEATURE | level,
        "dwMaxCCIDMessageLength": 271,
        **fields,
    }
    return SmartCardDescriptor(**values)


class IccdFunction(CcidFunction):
    """An ICCD's interface.

    Args:
        version: ICCD_A or ICCD_B.
        card: The card; None for a card that is virtually not present.
        descriptor: The class descriptor; None for the usual one.
        interrupt: The interface has an interrupt-IN endpoint.
        busy_s: The shortest time for which a request that starts work keeps the card busy,
            seconds.
        wDelayTime: The delay that version B asks for while busy, units of 10 ms; 0 leaves the
            delay to the host.
        **function: Further arguments of :class:`~ccid.virtual.ccid_function.CcidFunction`.

    Attributes:
        refusals: bError with which the next exchanges fail, a list to append to. Version A has
            no error codes: the card is then mute until the next power-on.
    """

    def __init__(
        self,
        version: InterfaceProtocol | int,
        card: Card | Sequence[Card | None] | None = None,
        *,
        descriptor: SmartCardDescriptor | None = None,
        interrupt: bool = False,
        busy_s: float = 0.0,
        wDelayTime: int = 1,
        **function: Any,
    ) -> None:
        self.version = InterfaceProtocol(version)
        if self.version is InterfaceProtocol.CCID:
            raise ValueError("bInterfaceProtocol 0 is a CCID; an ICCD has 1 (A) or 2 (B)")
        cards = list(card) if isinstance(card, Sequence) else [card]
        super().__init__(
            descriptor or make_iccd_descriptor(self.version),
            cards,
            interrupt=interrupt,
            bInterfaceProtocol=self.version,
            **function,
        )
        self.journal = Journal(self.journal.name, self.journal.secrets, numbered=False)
        self.busy_s = busy_s
        self.wDelayTime = wDelayTime
        self.refusals: deque[int] = deque()
        self._forget()

    def _forget(self) -> None:
        """Forget the exchange under way."""
        self._ready_at = 0.0
        self._tpdu = b""
        self._data = b""
        self._sw = b""
        self._mute = False
        self._response: bytes | None = None

    # What the device asks ---------------------------------------------------------------------

    def endpoints(self) -> list[EndpointPlan]:
        """Interrupt-IN, if the interface has one."""
        if self.interrupt_in is None:
            return []
        return [EndpointPlan(TransferType.INTERRUPT, True, EVENT_PACKET, 10)]

    def bulk_out(self, data: bytes, now: float) -> None:
        """Raise Stall: an ICCD has no bulk-OUT endpoint."""
        raise Stall

    def reset(self, now: float) -> None:
        """Bus reset or SET_CONFIGURATION."""
        self._forget()
        super().reset(now)

    def put(self, index: int, card: Card | None, now: float) -> None:
        """Make the card virtually present; None: virtually not present."""
        self._forget()
        super().put(index, card, now)

    def control(self, request: ClassControl, data: bytes, now: float) -> bytes:
        """A class-specific request. Raises Stall for a request that this state forbids."""
        handle = self._version_a if self.version is InterfaceProtocol.ICCD_A else self._version_b
        returned = handle(self.slots[0], request, data, now)
        self.on_change()
        return returned

    def _works(self, now: float, due: float) -> None:
        """The card is busy until ``due``, and at least for ``busy_s``."""
        self._ready_at = max(due, now + self.busy_s)

    # Version A --------------------------------------------------------------------------------

    def _version_a(
        self, slot: VirtualSlot, request: ClassControl, data: bytes, now: float
    ) -> bytes:
        is_in = request.bmRequestType == REQUEST_IN
        if not is_in and request.bmRequestType != REQUEST_OUT:
            raise Stall
        match request.bRequest:
            case IccdRequest.GET_ICC_STATUS if is_in:
                return bytes((self._phase(slot, now),))
            case IccdRequest.ICC_POWER_OFF if not is_in:
                slot.power_off()
                self._forget()
                return b""
            case IccdRequest.ICC_POWER_ON if is_in:
                self._forget()
                atr = slot.power_on(now)
                if not atr:
                    raise Stall
                return atr
            case IccdRequest.XFR_BLOCK if not is_in and slot.powered:
                self._heard(data, begins=self._phase(slot, now) is PhaseA.COMMAND)
                self._take(slot, data, now)
                return b""
            case IccdRequest.DATA_BLOCK if is_in and slot.powered:
                block = self._give(slot, request.wLength, now)
                self._told(block)
                return block
        raise Stall

    def _phase(self, slot: VirtualSlot, now: float) -> PhaseA:
        if slot.card is None or slot.mute or self._mute:
            return PhaseA.MUTE
        if now < self._ready_at:
            return PhaseA.BUSY
        if self._tpdu or self._data:
            return PhaseA.DATA
        return PhaseA.STATUS if self._sw else PhaseA.COMMAND

    def _take(self, slot: VirtualSlot, data: bytes, now: float) -> None:
        """XFR_BLOCK: a header, or the data after a header."""
        phase = self._phase(slot, now)
        begins = phase is PhaseA.COMMAND and len(data) >= HEADER
        if not begins and not (phase is PhaseA.DATA and self._tpdu and data):
            raise Stall
        if begins and self.refusals:
            self.refusals.popleft()
            self._mute = True
            return
        tpdu = self._tpdu + data
        face = slot.wire.contact.t0.face if slot.wire is not None else None
        assert face is not None
        lacking = tpdu[4] if face.takes_data(tpdu[:HEADER]) else 0
        if len(tpdu) > HEADER + lacking:
            raise Stall
        if len(tpdu) < HEADER + lacking:
            self._tpdu = tpdu
            self._works(now, now)
            return
        self._tpdu = b""
        try:
            answer = face.transmit(tpdu)
        except Mute:
            self._mute = True
            return
        self._data, self._sw = answer.data, answer.sw.to_bytes(2, "big")
        if self.descriptor.exchange_level is ExchangeLevel.TPDU:
            self._data, self._sw = answer.apdu, b""  # in one piece
        self._works(now, now + answer.after_s)

    def _give(self, slot: VirtualSlot, wLength: int, now: float) -> bytes:
        """DATA_BLOCK: response data or SW1 SW2, by phase."""
        phase = self._phase(slot, now)
        if phase is PhaseA.DATA and self._data:
            part, self._data = self._data[:wLength], self._data[wLength:]
            return part
        if phase is PhaseA.STATUS:
            part, self._sw = self._sw[:wLength], self._sw[wLength:]
            return part
        raise Stall

    # Version B --------------------------------------------------------------------------------

    def _version_b(
        self, slot: VirtualSlot, request: ClassControl, data: bytes, now: float
    ) -> bytes:
        is_in = request.bmRequestType == REQUEST_IN
        if not is_in and request.bmRequestType != REQUEST_OUT:
            raise Stall
        match request.bRequest:
            case IccdRequest.SLOT_STATUS if is_in:
                return bytes((ResponseB.STATUS, slot.icc_status, 0))
            case IccdRequest.ICC_POWER_OFF if not is_in:
                slot.power_off()
                self._forget()
                return b""
            case IccdRequest.ICC_POWER_ON if not is_in:
                self._forget()
                atr = slot.power_on(now)
                self._response = b"\0" + atr if atr else self._status(slot, SlotError.ICC_MUTE)
                self._works(now, now)
                return b""
            case IccdRequest.XFR_BLOCK if not is_in:
                self._xfr_block(slot, data, request.wValue >> 8, now)
                return b""
            case IccdRequest.DATA_BLOCK if is_in:
                return self._data_block(slot, request.wLength, now)
        raise Stall

    def _status(self, slot: VirtualSlot, bError: int) -> bytes:
        bStatus = CommandStatus.FAILED << 6 | slot.icc_status
        return bytes((ResponseB.STATUS, bStatus, bError))

    def _xfr_block(self, slot: VirtualSlot, data: bytes, level: int, now: float) -> None:
        if now < self._ready_at:
            raise Stall
        command = PC_to_RDR_XfrBlock(wLevelParameter=level, abData=data)
        self.journal.heard(command.build())
        due = now
        try:
            if self.refusals:
                raise Refused(self.refusals.popleft())
            if not slot.powered:
                raise Refused(SlotError.ICC_MUTE)
            later = LateReply(slot, b"", self._deliver)
            part = self._levels.extended(slot, Block(0, level, data), now, later)
            if part is None:
                slot.late_reply = later
                self._response, due = self._status(slot, SlotError.ICC_MUTE), now + LATE_LIMIT_S
            else:
                self._response, due = self._block(*part[:2]), part[2]
        except Refused as refused:
            self._response = self._status(slot, refused.bError)
        self._works(now, due)

    def _block(self, chain: int, part: bytes) -> bytes:
        self.journal.said(RDR_to_PC_DataBlock(bChainParameter=chain, abData=part).build())
        return bytes((chain,)) + part

    def _deliver(
        self, slot: VirtualSlot, command: bytes, answer: Answer | None, now: float
    ) -> None:
        """The answer to XFR_BLOCK came later: the card is no longer busy."""
        if answer is None:
            self._response = self._status(slot, SlotError.ICC_MUTE)
        else:
            self._response = self._block(*self._levels.first_part(slot, answer))
        self._works(now, now)
        self.on_change()

    def _data_block(self, slot: VirtualSlot, wLength: int, now: float) -> bytes:
        if wLength < MIN_DATA_BLOCK:
            raise Stall
        if now < self._ready_at:
            return bytes((ResponseB.POLLING,)) + self.wDelayTime.to_bytes(2, "little")
        response, self._response = self._response, None
        return self._status(slot, SlotError.CMD_NOT_SUPPORTED) if response is None else response

    # The log ----------------------------------------------------------------------------------

    def _heard(self, data: bytes, begins: bool) -> None:
        level = Level.WHOLE if begins else Level.CONTINUES
        self.journal.heard(PC_to_RDR_XfrBlock(wLevelParameter=level, abData=data).build())

    def _told(self, data: bytes) -> None:
        self.journal.said(RDR_to_PC_DataBlock(abData=data).build())
