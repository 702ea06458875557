"""Parameters of a virtual reader: USB CCID rev 1.1, 6.1.5 to 6.1.7, and the features by which the
reader sets them, or negotiates them with the card, by itself (5.1, dwFeatures)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from functools import reduce
from operator import xor

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import PC_to_RDR_SetParameters, ProtocolDataT0, ProtocolDataT1
from ccid.codes import BLOCKWISE, Features, Protocol
from ccid.iso7816.atr import DEFAULT_FIDI, Atr
from ccid.virtual.cards.line import clocks_per_etu
from ccid.virtual.contact_wire import Refused, Wire
from ccid.virtual.virtual_slot import ProtocolData, VirtualSlot

OF_LENGTH, OF_PROTOCOL, OF_DATA = 1, 7, 10
"""Offsets of dwLength, bProtocolNum and abProtocolDataStructure in PC_to_RDR_SetParameters."""


class ParameterKeeper:
    """Sets the parameters of a slot.

    Args:
        descriptor: The reader's class descriptor.
        data_rates: What GET_DATA_RATES returns, bit/s. If there are any, the reader refuses all
            other rates.
        unchangeable: Fields, such as ``bGuardTimeT1``, that keep their default. A
            PC_to_RDR_SetParameters that changes such a field fails with the field's offset as
            bError.
        preferred: The protocol that the reader selects by itself (dwFeatures bit 6) if card and
            reader have both protocols. The specification leaves the choice to the maker; PC/SC
            hosts expect T=1.
    """

    def __init__(
        self,
        descriptor: SmartCardDescriptor,
        data_rates: Sequence[int] = (),
        unchangeable: Collection[str] = (),
        preferred: Protocol = Protocol.T1,
    ) -> None:
        self.descriptor = descriptor
        self.data_rates = data_rates
        self.unchangeable = frozenset(unchangeable)
        self.preferred = preferred

    # After a reset ----------------------------------------------------------------------------

    def begin(self, slot: VirtualSlot, now: float) -> float:
        """Do what the reader does by itself after a reset; return the time of the end."""
        atr, features = slot.atr(), self.descriptor.features
        if atr is None or slot.wire is None:
            return now
        if features & Features.AUTO_NEGOTIATION:
            protocol = self._choice(atr)
            wanted = from_atr(atr, protocol, self._best(atr))
            try:
                return self._select(slot, wanted, now)
            except Refused as refused:
                slot.power_on(now)
                slot.use(from_atr(atr, self._default(atr), _fidi_in_force(atr)))
                return now if refused.at is None else refused.at
        if features & (Features.AUTO_PARAMETERS | Features.AUTO_PPS):
            slot.use(from_atr(atr, self._default(atr), _fidi_in_force(atr)))
        return now

    def _default(self, atr: Atr) -> Protocol:
        return Protocol.T1 if atr.default_protocol == 1 else Protocol.T0

    def _choice(self, atr: Atr) -> Protocol:
        """The protocol that the reader selects by itself."""
        if atr.specific_mode:
            return self._default(atr)
        both = [t for t in atr.protocols if t in (0, 1) and self.descriptor.dwProtocols >> t & 1]
        if self.preferred in both:
            return self.preferred
        return Protocol(both[0]) if both else self._default(atr)

    def _best(self, atr: Atr) -> int:
        if atr.specific_mode or atr.ta1 is None or not self._has_rate(atr.ta1):
            return _fidi_in_force(atr)
        return atr.ta1

    # PC_to_RDR_SetParameters --------------------------------------------------------------------

    def set(self, slot: VirtualSlot, command: PC_to_RDR_SetParameters, now: float) -> float:
        """Carry out a command; return the time of the end.

        Raises:
            Refused: With the offset of the wrong field, or ICC_MUTE.
        """
        number, data = command.bProtocolNum, command.abProtocolDataStructure
        if number > 1 or not self.descriptor.dwProtocols >> number & 1:
            raise Refused(OF_PROTOCOL)
        if not isinstance(data, ProtocolDataT0 | ProtocolDataT1):
            raise Refused(OF_LENGTH)
        self._check(data)
        if slot.wire is None or not slot.powered or not self._has_contacts:
            slot.use(data)
            return now
        automatic = Features.AUTO_PPS | Features.AUTO_NEGOTIATION
        if self.descriptor.features & automatic and _differs(data, slot):
            return self._select(slot, data, now)
        slot.use(data)
        return now

    @property
    def _has_contacts(self) -> bool:
        """False at APDU levels, where the protocols on the contacts are not simulated."""
        return self.descriptor.exchange_level in BLOCKWISE

    def _check(self, data: ProtocolData) -> None:
        defaults = type(data)()
        for offset, field in enumerate(dataclasses.fields(data)):
            changed = getattr(data, field.name) != getattr(defaults, field.name)
            if changed and field.name in self.unchangeable:
                raise Refused(OF_DATA + offset)
        if not self._has_rate(data.bmFindexDindex):
            raise Refused(OF_DATA)
        if isinstance(data, ProtocolDataT1) and data.bmWaitingIntegersT1 >> 4 > 9:
            raise Refused(OF_DATA + 3)
        if isinstance(data, ProtocolDataT1) and data.bIFSC in (0, 255):
            raise Refused(OF_DATA + 5)

    def _has_rate(self, fidi: int) -> bool:
        clocks = clocks_per_etu(fidi)
        if clocks is None:
            return False
        rate = int(1000 * self.descriptor.dwDefaultClock / clocks)
        default = int(1000 * self.descriptor.dwDefaultClock / 372)
        if rate > max(self.descriptor.dwMaxDataRate, default) + 1:
            return False
        listed = [default, *self.data_rates]
        return not self.data_rates or any(abs(rate - one) <= 1 for one in listed)

    # PPS by the reader --------------------------------------------------------------------------

    def _select(self, slot: VirtualSlot, data: ProtocolData, now: float) -> float:
        """Negotiate protocol, F and D of ``data`` by PPS; if PPS is no longer possible, reset the
        card first."""
        wire, atr = slot.wire, slot.atr()
        assert wire is not None
        if atr is None or atr.specific_mode:
            slot.use(data)  # in specific mode there is nothing to negotiate
            return now
        if not wire.fresh:
            if not self.descriptor.features & Features.AUTO_NEGOTIATION:
                slot.use(data)
                return now
            slot.power_on(now)
        protocol = Protocol.T1 if isinstance(data, ProtocolDataT1) else Protocol.T0
        is_default = protocol == atr.default_protocol
        if is_default and clocks_per_etu(data.bmFindexDindex) == clocks_per_etu(DEFAULT_FIDI):
            slot.use(data)
            return now
        fidi, now = _pps(wire, protocol, data.bmFindexDindex, now)
        slot.use(dataclasses.replace(data, bmFindexDindex=fidi))
        return now


def from_atr(atr: Atr, protocol: Protocol, fidi: int) -> ProtocolData:
    """The parameters that an ATR gives (USB CCID rev 1.1, 6.1.7)."""
    inverse = 0x02 if atr.inverse else 0x00
    if protocol is Protocol.T0:
        return ProtocolDataT0(
            bmFindexDindex=fidi,
            bmTCCKST0=inverse,
            bGuardTimeT0=atr.extra_guard_time,
            bWaitingIntegerT0=atr.wi or 10,
            bClockStop=atr.clock_stop or 0,
        )
    return ProtocolDataT1(
        bmFindexDindex=fidi,
        bmTCCKST1=0x10 | inverse | atr.crc,
        bGuardTimeT1=atr.extra_guard_time,
        bmWaitingIntegersT1=min(atr.bwi, 9) << 4 | atr.cwi,
        bClockStop=atr.clock_stop or 0,
        bIFSC=atr.ifsc,
    )


def _fidi_in_force(atr: Atr) -> int:
    """F and D directly after the ATR (ISO/IEC 7816-3:2006 6.3.1)."""
    if atr.ta2 is None or atr.ta2 & 0x10 or atr.ta1 is None:
        return DEFAULT_FIDI
    return atr.ta1


def _differs(data: ProtocolData, slot: VirtualSlot) -> bool:
    """True if ``data`` have another protocol or rate than the parameters in force."""
    old = slot.parameters[slot.protocol]
    rates = clocks_per_etu(data.bmFindexDindex), clocks_per_etu(old.bmFindexDindex)
    return type(data) is not type(old) or rates[0] != rates[1]


def _pps(wire: Wire, protocol: Protocol, fidi: int, now: float) -> tuple[int, float]:
    """The reader's own PPS; return the negotiated F and D, and the time of the end.

    Raises:
        Refused: The card does not answer, or the answer is not one that 9.3 allows.
    """
    default = clocks_per_etu(fidi) == clocks_per_etu(DEFAULT_FIDI)
    head = bytes((0xFF, protocol)) if default else bytes((0xFF, 0x10 | protocol, fidi))
    request = head + bytes((reduce(xor, head),))
    response, now = wire.exchange_pps(request, now)
    if response == request:
        return fidi, now
    if response == bytes((0xFF, protocol, 0xFF ^ protocol)):
        return DEFAULT_FIDI, now
    raise Refused(OF_DATA, now)
