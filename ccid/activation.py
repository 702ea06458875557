"""Powering a card up: from no power to an agreement by which APDUs go.

Voltage, ATR, protocol, speed (by PPS where that is up to the host), parameters, IFSD. An attempt
that fails costs a reset and is followed by a slower one, in the end by the default that every
card understands (ISO/IEC 7816-3:2006 6.3 and 9): a speed that does not work must not make a card
look dead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ccid.codes import BLOCKWISE, ExchangeLevel, Features, IccStatus, PowerSelect, Protocol
from ccid.commands import SlotCommands
from ccid.descriptors import SmartCardDescriptor
from ccid.errors import (
    CardAbsent,
    CardMute,
    CcidError,
    CommandFailed,
    MalformedAtr,
    MalformedMessage,
    ProtocolError,
    TransportTimeout,
    UnsupportedByReader,
)
from ccid.exchange.agreement import Agreement
from ccid.exchange.links import BlockLink, CharacterBlockLink
from ccid.iso7816 import pps
from ccid.iso7816.atr import DEFAULT_FIDI, Atr
from ccid.iso7816.machine import run
from ccid.iso7816.timing import Timing, pps_timeout
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


class Activation:
    """One power-up of a card, in one go (:meth:`run`) or in two steps, :meth:`power_up` and
    :meth:`agree`, for those who are asked in two.

    Args:
        commands: The slot's commands.
        descriptor: The reader's class descriptor.
        rates: What GET_DATA_RATES returned, in bit/s.
        first_voltage: What to try first where that is the host's choice; None for 5 V.
    """

    def __init__(
        self,
        commands: SlotCommands,
        descriptor: SmartCardDescriptor,
        rates: list[int],
        first_voltage: PowerSelect | None = None,
    ) -> None:
        self.commands = commands
        self.descriptor = descriptor
        self.rates = rates
        self._quirks = commands.quirks
        self._first_voltage = first_voltage
        self.raw = b""
        """The ATR of the last power-up."""
        self._select = PowerSelect.AUTOMATIC
        self._untouched = False
        """Nothing was said to the card since its ATR."""

    def run(self, wanted: Protocol | None) -> tuple[Atr, Agreement]:
        """Power the card up and agree with it; if that fails, power it off.

        Args:
            wanted: The protocol to insist on; None for the best.

        Raises:
            What :meth:`power_up` and :meth:`agree` do.
        """
        with self.commands.operation():
            try:
                self.power_up()
                return self.agree(wanted)
            except BaseException:
                with suppress(CcidError):
                    self.commands.power_off()
                raise

    @staticmethod
    def _is_gone(error: CcidError) -> bool:
        return (error.bStatus or 0) & 0x03 == IccStatus.ABSENT

    # Power ------------------------------------------------------------------------------------

    def power_up(self) -> bytes:
        """The first of the two steps of :meth:`run`: activate or reset the card, at one voltage
        after the other until it answers; then at the one its ATR names.

        Returns:
            Its ATR, which may be malformed (:meth:`agree` says so), or empty for a card that is
            active and says nothing.

        Raises:
            CardAbsent, CardMute, CommandFailed: There is nothing that answers.
        """
        with self.commands.operation():
            *others, last = power_selects(
                self.descriptor, self._quirks.power_on_voltage, self._first_voltage
            )
            for self._select in others:
                try:
                    if self._reset():
                        break
                except CardAbsent:
                    raise
                except (CardMute, CommandFailed) as error:
                    if self._is_gone(error):
                        raise
                self.commands.power_off()
            else:
                self._select = last
                self._reset()
            with suppress(MalformedAtr):
                better = better_voltage(Atr.parse(self.raw), self._select, self.descriptor)
                if better != self._select:
                    self._select = better
                    self._power_cycle()
            return self.raw

    def _reset(self) -> bytes:
        self.raw = self.commands.power_on(self._select)
        self._untouched = True
        return self.raw

    def _power_cycle(self) -> None:
        self.commands.power_off()
        self._reset()

    def _atr(self) -> Atr:
        if not self.raw:
            raise CardMute(
                f"{self.commands.name}: the card in slot {self.commands.slot} is active and "
                f"sent no ATR: a memory card?",
                reader=self.commands.name,
                slot=self.commands.slot,
            )
        return Atr.parse(self.raw)

    # Agreeing ---------------------------------------------------------------------------------

    def agree(self, wanted: Protocol | None, fidi: int | None = None) -> tuple[Atr, Agreement]:
        """The second step of :meth:`run`: agree on protocol, speed and parameters with the card
        that :meth:`power_up` activated. One that was talked to since is reset first.

        Args:
            wanted: The protocol to insist on; None for the best.
            fidi: Fi and Di to insist on, coded as TA1; None for the fastest that works.

        Raises:
            CardAbsent, CardMute: There is nothing that answers.
            MalformedAtr: It answers, but not with an ATR.
            UnsupportedByReader: Card and reader have no protocol or speed in common.
            CommandFailed, ProtocolError: It answers, and nothing more can be agreed.
        """
        with self.commands.operation():
            if not self._untouched:
                self._power_cycle()
            atr = self._atr()
            attempts = list(self._attempts(atr, wanted, fidi))
            for attempt in attempts[:-1]:
                try:
                    return self._agreed(atr, *attempt)
                except CardAbsent:
                    raise
                except (CardMute, CommandFailed, ProtocolError, UnsupportedByReader) as error:
                    if self._is_gone(error):
                        raise
                    self._power_cycle()
                    atr = self._atr()
            return self._agreed(atr, *attempts[-1])

    def _attempts(
        self, atr: Atr, wanted: Protocol | None, fidi: int | None
    ) -> Iterator[tuple[Protocol, int]]:
        no_pps = self._quirks.no_pps
        for protocol in choose_protocol(atr, self.descriptor, wanted, no_pps=no_pps):
            if fidi is not None:
                yield protocol, fidi
                continue
            for speed in speeds(atr, self.descriptor, self.rates, no_pps=no_pps):
                yield protocol, speed

    def _agreed(self, atr: Atr, protocol: Protocol, fidi: int) -> tuple[Atr, Agreement]:
        """PPS, parameters and IFSD for one protocol and speed, right after a reset; the ATR of
        the last reset, and the agreement."""
        self._untouched = False
        if needs_pps(atr, self.descriptor, protocol, fidi):
            if self._quirks.no_pps:
                raise UnsupportedByReader(
                    f"{self.commands.name}: no PPS gets through this reader, so the card keeps "
                    f"T={atr.default_protocol} and its default speed",
                    reader=self.commands.name,
                    slot=self.commands.slot,
                )
            fidi = self._pps(atr, protocol, fidi)
        if self.descriptor.features & Features.AUTO_NEGOTIATION:
            protocol, fidi = self._negotiated(atr, protocol, fidi)
        else:
            try:
                protocol, fidi = self._set_parameters(atr, protocol, fidi)
            except (CardMute, CommandFailed) as error:
                ends = protocol is not Protocol.T1 or self._is_gone(error)
                if ends or not self._quirks.reset_if_parameters_fail:
                    raise
                atr, fidi = self._as_it_is()
        bwi, cwi = waiting_integers(atr)
        timing = Timing.of(atr, self._clock_hz, fidi, bwi=bwi, cwi=cwi)
        agreement = Agreement(protocol, fidi, timing)
        if protocol is Protocol.T1:
            agreement.extra_s = self._quirks.t1_timeout_extra_s
            if self.descriptor.exchange_level in BLOCKWISE:
                self._start_t1(atr, agreement)
        return atr, agreement

    def _as_it_is(self) -> tuple[Atr, int]:
        """Reset the card twice, cold and warm, and leave it to the reader: its ATR then, and Fi
        and Di in force."""
        self._power_cycle()
        self._reset()
        self._untouched = False
        atr = self._atr()
        return atr, self._fidi_in_force(DEFAULT_FIDI if atr.ta1 is None else atr.ta1)

    @property
    def _clock_hz(self) -> int:
        return self.descriptor.dwDefaultClock * 1000

    def _pps(self, atr: Atr, protocol: Protocol, fidi: int) -> int:
        """Ask the card for protocol and speed (ISO/IEC 7816-3:2006 9); returns Fi and Di in
        force then."""
        asked = pps.request(protocol, fidi if fidi != DEFAULT_FIDI else None)
        timeout_s = pps_timeout(Timing.of(atr, self._clock_hz))
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
            if protocol != atr.default_protocol and self.descriptor.exchange_level in BLOCKWISE:
                raise
        except CommandFailed as error:
            if not 1 <= (error.bError or 0) <= 127:
                raise
            return protocol, self._fidi_in_force(fidi)  # that value cannot be changed
        return protocol, fidi

    def _negotiated(self, atr: Atr, wanted: Protocol, fidi: int) -> tuple[Protocol, int]:
        """What a reader that negotiates by itself has agreed on with the card. At APDU level that
        is its own affair; else the host has to know, and may have to insist."""
        common = [t for t in atr.protocols if self.descriptor.dwProtocols >> t & 1]
        if self.descriptor.exchange_level not in BLOCKWISE or len(common) < 2:
            return wanted, fidi  # there is nothing that it could have chosen otherwise
        found = self._in_force()
        if found is None:
            return wanted, fidi
        if isinstance(found, ProtocolDataT1) == (wanted is Protocol.T1):
            return wanted, found.bmFindexDindex
        try:
            self.commands.set_parameters(protocol_data(atr, wanted, found.bmFindexDindex))
        except (UnsupportedByReader, CommandFailed):
            raise UnsupportedByReader(
                f"{self.commands.name}: the reader negotiates by itself and has not agreed on "
                f"{wanted} with the card",
                reader=self.commands.name,
                slot=self.commands.slot,
            ) from None
        return wanted, found.bmFindexDindex

    def _in_force(self) -> ProtocolDataT0 | ProtocolDataT1 | None:
        """The parameters that the reader says are in force; None if it does not say, or says
        nonsense (QEMU's announces no data and sends some)."""
        try:
            parameters = self.commands.get_parameters()
        except (UnsupportedByReader, CommandFailed, MalformedMessage, TransportTimeout):
            return None
        return None if isinstance(parameters, bytes) else parameters

    def _fidi_in_force(self, wanted: int) -> int:
        found = self._in_force()
        return wanted if found is None else found.bmFindexDindex

    def _start_t1(self, atr: Atr, agreement: Agreement) -> None:
        machine = make_t1(atr, self.descriptor, self.commands.name)
        agreement.t1 = machine
        ifsd = choose_ifsd(self.descriptor, machine)
        if self.descriptor.features & Features.AUTO_IFSD:
            machine.ifsd = ifsd  # the reader has told the card so, or will
            return
        character = self.descriptor.exchange_level is ExchangeLevel.CHARACTER
        link = (CharacterBlockLink if character else BlockLink)(self.commands, agreement)
        run(machine.announce_ifsd(ifsd), link)
