"""Powering a card up: from no power to an agreement by which APDUs go.

Voltage, ATR, protocol, speed (by PPS where that is up to the host), parameters, IFSD. An attempt
that fails costs a reset and is followed by a slower one, in the end by the default that every
card understands (ISO/IEC 7816-3:2006 6.3 and 9): a speed that does not work must not make a card
look dead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ccid.codes import ExchangeLevel, Features, IccStatus, PowerSelect, Protocol
from ccid.commands import SlotCommands
from ccid.descriptors import SmartCardDescriptor
from ccid.errors import (
    CardAbsent,
    CardMute,
    CcidError,
    CommandFailed,
    ProtocolError,
    UnsupportedByReader,
)
from ccid.exchange.agreement import Agreement
from ccid.exchange.links import BlockLink, CharacterBlockLink
from ccid.iso7816 import pps, t1
from ccid.iso7816.atr import DEFAULT_FIDI, Atr
from ccid.iso7816.timing import Timing, exchange_timeout
from ccid.messages import ProtocolDataT0, ProtocolDataT1
from ccid.negotiation import (
    better_voltage,
    choose_ifsd,
    choose_protocol,
    make_t1,
    needs_pps,
    power_selects,
    protocol_data,
    speeds,
    waiting_integers,
)

HOST_SPEAKS = (ExchangeLevel.CHARACTER, ExchangeLevel.TPDU)
"""The levels at which the host speaks T=1 itself."""


class Activation:
    """One power-up of a card.

    Args:
        commands: The slot's commands.
        descriptor: The reader's class descriptor.
        rates: What GET_DATA_RATES returned, in bit/s.
    """

    def __init__(
        self, commands: SlotCommands, descriptor: SmartCardDescriptor, rates: list[int]
    ) -> None:
        self.commands = commands
        self.descriptor = descriptor
        self.rates = rates

    def run(self, wanted: Protocol | None) -> tuple[Atr, Agreement]:
        """Power the card up and agree with it.

        Args:
            wanted: The protocol to insist on; None for the best.

        Raises:
            CardAbsent, CardMute: There is nothing that answers.
            MalformedAtr: It answers, but not with an ATR.
            UnsupportedByReader: Card and reader have no protocol or speed in common.
            CommandFailed, ProtocolError: It answers, and nothing more can be agreed.
        """
        with self.commands.operation():
            try:
                return self._run(wanted)
            except BaseException:
                with suppress(CcidError):
                    self.commands.power_off()
                raise

    def _run(self, wanted: Protocol | None) -> tuple[Atr, Agreement]:
        select, atr = self._power_on()
        attempts = list(self._attempts(atr, wanted))
        for protocol, fidi in attempts[:-1]:
            try:
                return atr, self._agree(atr, protocol, fidi)
            except CardAbsent:
                raise
            except (
                CardMute,
                CommandFailed,
                ProtocolError,
                UnsupportedByReader,
            ) as error:
                if self._is_gone(error):
                    raise
                self.commands.power_off()
                atr = Atr.parse(self._raw_atr(select))
        return atr, self._agree(atr, *attempts[-1])

    @staticmethod
    def _is_gone(error: CcidError) -> bool:
        return (error.bStatus or 0) & 0x03 == IccStatus.ABSENT

    # Power ------------------------------------------------------------------------------------

    def _power_on(self) -> tuple[PowerSelect, Atr]:
        """One voltage after the other until the card answers; then the one its ATR names."""
        *others, last = power_selects(self.descriptor)
        select, raw = last, b""
        for select in others:
            try:
                raw = self._raw_atr(select)
                break
            except CardAbsent:
                raise
            except (CardMute, CommandFailed) as error:
                if self._is_gone(error):
                    raise
                self.commands.power_off()
        else:
            select, raw = last, self._raw_atr(last)
        atr = Atr.parse(raw)
        better = better_voltage(atr, select, self.descriptor)
        if better != select:
            self.commands.power_off()
            select, atr = better, Atr.parse(self._raw_atr(better))
        return select, atr

    def _raw_atr(self, select: PowerSelect) -> bytes:
        raw = self.commands.power_on(select)
        if not raw:
            raise CardMute(
                f"{self.commands.name}: the card in slot {self.commands.slot} is active and "
                f"sent no ATR: a memory card?",
                reader=self.commands.name,
                slot=self.commands.slot,
            )
        return raw

    # Agreeing ---------------------------------------------------------------------------------

    def _attempts(self, atr: Atr, wanted: Protocol | None) -> Iterator[tuple[Protocol, int]]:
        for protocol in choose_protocol(atr, self.descriptor, wanted):
            for fidi in speeds(atr, self.descriptor, self.rates):
                yield protocol, fidi

    def _agree(self, atr: Atr, protocol: Protocol, fidi: int) -> Agreement:
        """PPS, parameters and IFSD for one protocol and speed, right after a reset."""
        if needs_pps(atr, self.descriptor, protocol, fidi):
            fidi = self._pps(atr, protocol, fidi)
        if not self.descriptor.features & Features.AUTO_NEGOTIATION:
            protocol, fidi = self._set_parameters(atr, protocol, fidi)
        bwi, cwi = waiting_integers(atr)
        timing = Timing.of(atr, self._clock_hz, fidi, bwi=bwi, cwi=cwi)
        agreement = Agreement(protocol, fidi, timing)
        if protocol is Protocol.T1 and self.descriptor.exchange_level in HOST_SPEAKS:
            self._start_t1(atr, agreement)
        return agreement

    @property
    def _clock_hz(self) -> int:
        return self.descriptor.dwDefaultClock * 1000

    def _pps(self, atr: Atr, protocol: Protocol, fidi: int) -> int:
        """Ask the card for protocol and speed (ISO/IEC 7816-3:2006 9); returns Fi and Di in
        force then."""
        asked = pps.request(protocol, fidi if fidi != DEFAULT_FIDI else None)
        timeout_s = exchange_timeout(Timing.of(atr, self._clock_hz), Protocol.T0)
        if self.descriptor.exchange_level is ExchangeLevel.CHARACTER:
            response, _ = self.commands.xfr_block(asked, timeout_s=timeout_s, wLevelParameter=2)
            if len(response) == 2:  # PPS0 tells how many follow
                missing = 1 + (response[1] >> 4 & 7).bit_count()
                response += self.commands.xfr_block(
                    b"", timeout_s=timeout_s, wLevelParameter=missing
                )[0]
        else:
            response, _ = self.commands.xfr_block(asked, timeout_s=timeout_s)
        return pps.confirmed(asked, response, self.commands.name)

    def _set_parameters(self, atr: Atr, protocol: Protocol, fidi: int) -> tuple[Protocol, int]:
        """Tell the reader what is in force now, or what it shall negotiate by itself; returns
        what it makes of it."""
        try:
            self.commands.set_parameters(protocol_data(atr, protocol, fidi))
        except UnsupportedByReader:
            # It has a will of its own: then it is the card's default that is in force
            if protocol != atr.default_protocol and self.descriptor.exchange_level in HOST_SPEAKS:
                raise
        except CommandFailed as error:
            if not 1 <= (error.bError or 0) <= 127:
                raise
            return protocol, self._fidi_in_force(fidi)  # that value cannot be changed
        return protocol, fidi

    def _fidi_in_force(self, wanted: int) -> int:
        try:
            parameters = self.commands.get_parameters()
        except (UnsupportedByReader, CommandFailed):
            return wanted
        if isinstance(parameters, ProtocolDataT0 | ProtocolDataT1):
            return parameters.bmFindexDindex
        return wanted

    def _start_t1(self, atr: Atr, agreement: Agreement) -> None:
        machine = make_t1(atr, self.descriptor, self.commands.name)
        agreement.t1 = machine
        ifsd = choose_ifsd(self.descriptor, machine)
        if self.descriptor.features & Features.AUTO_IFSD:
            machine.ifsd = ifsd  # the reader has told the card so, or will
            return
        character = self.descriptor.exchange_level is ExchangeLevel.CHARACTER
        link = (CharacterBlockLink if character else BlockLink)(self.commands, agreement)
        t1.run(machine.announce_ifsd(ifsd), link)
