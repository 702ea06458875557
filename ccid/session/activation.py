"""Powering a card up: from no power to an agreement by which APDUs go.

Voltage, ATR, protocol, speed (by PPS where that is up to the host), parameters, IFSD. An attempt
that fails costs a reset and is followed by a slower one, in the end by the default that every
card understands (ISO/IEC 7816-3:2006 6.3 and 9): a speed that does not work must not make a card
look dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import ProtocolDataT0, ProtocolDataT1
from ccid.codes import BLOCKWISE, ExchangeLevel, Features, IccStatus, PowerSelect, Protocol
from ccid.errors import (
    CardAbsent,
    CardMute,
    CcidError,
    CommandFailed,
    MalformedAtr,
    MalformedMessage,
    ProtocolError,
    SlotBusy,
    TransportStall,
    TransportTimeout,
    UnsupportedByReader,
)
from ccid.iso7816 import pps
from ccid.iso7816.atr import DEFAULT_FIDI, MAX_IFS, Atr
from ccid.iso7816.machine import run
from ccid.iso7816.timing import Timing, pps_timeout
from ccid.known.quirks.vocabulary import TPDU_ESCAPE
from ccid.link.card_state import Presence
from ccid.link.slot_commands import SlotCommands
from ccid.session.exchange.agreement import Agreement
from ccid.session.exchange.block_links import BlockLink, CharacterBlockLink
from ccid.session.negotiation import (
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

FAILURES = (CardMute, CommandFailed, MalformedAtr, TransportStall)
"""What a power-on that is worth another try ends in: the card or the line to it failed. A stall is
all that an ICCD device of version A can say."""
REST_S = 0.1
"""Seconds without power before a power-on is tried once more: contacts come to rest, and a
contactless card gets further into the field."""
BUSY_S = 2.0
"""How long a reader may be busy by itself with a card that is to be powered."""


T = TypeVar("T")


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
        self._again: PowerSelect | None = None
        self._untouched = False
        """It is active, and nothing was said to the card since its ATR."""

    def run(self, wanted: Protocol | None) -> tuple[Atr, Agreement]:
        """Power the card up and agree with it; if that fails, power it off.

        Args:
            wanted: The protocol to insist on; None for the best.

        Raises:
            What :meth:`power_up` and :meth:`agree` do.
        """
        return self._or_off(lambda: self._powered_and_agreed(wanted))

    def _powered_and_agreed(self, wanted: Protocol | None) -> tuple[Atr, Agreement]:
        self._power_up()
        return self.agree(wanted)

    def _or_off(self, work: Callable[[], T]) -> T:
        """Do ``work`` as one operation, and take the card's power if that fails: even if the time
        of the operation is over."""
        with self.commands.conversation.turn(self.commands.slot):
            try:
                return self.commands.perform(work)
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
        after the other until it answers; then at the one its ATR names. If that fails, power it
        off.

        A card that answers at none, or by an ATR that is broken, is powered off and on once more:
        its contacts may have bounced, or it was still on its way into the field.

        Returns:
            Its ATR, which may be malformed (:meth:`agree` says so), or empty for a card that is
            active and says nothing.

        Raises:
            CardAbsent, CardMute, CommandFailed: There is nothing that answers.
            MalformedAtr: It answered by no ATR, and then no more.
            CardRemoved: The reader said so between the two tries.
        """
        self._or_off(self._power_up)
        return self.raw

    def _power_up(self) -> None:
        self._activate(
            power_selects(self.descriptor, self._quirks.power_on_voltage, self._first_voltage)
        )
        with suppress(MalformedAtr):
            better = better_voltage(Atr.parse(self.raw), self._select, self.descriptor)
            if better != self._select:
                self._select = better
                self._power_cycle()

    def _activate(self, selects: Iterable[PowerSelect]) -> None:
        """Have the card answer at one of ``selects``; once more where it seems best if it does
        not. One that is active then stays so, whatever its ATR."""
        heard = self.commands.conversation.cards.heard
        try:
            self._at_one_of(selects)
        except FAILURES as first:
            if self._again is None:
                raise
            self._off()
            time.sleep(REST_S)
            self._check_present(heard)
            try:
                self._at(self._again)
            except FAILURES as second:
                if self._untouched:
                    return
                if _telling(second) > _telling(first):
                    raise
                raise first from second

    def _at_one_of(self, selects: Iterable[PowerSelect]) -> None:
        """Try ``selects`` until the card answers at one.

        Raises:
            The most telling failure, and ``_again`` is where to try once more, if at all.
        """
        self._again = None
        failures: list[CcidError] = []
        again: PowerSelect | None = None
        for select in selects:
            if failures:
                self._off()
            try:
                self._at(select)
                return
            except FAILURES as failure:
                if self._is_gone(failure) or isinstance(failure, SlotBusy):
                    raise
                failures.append(failure)
            if self._untouched:  # it answers, by no ATR
                again = select
                if self.raw:
                    break
            elif again is None and not _is_refusal(failures[-1]):
                again = select
        self._again = again
        raise max(failures, key=_telling)

    def _at(self, select: PowerSelect) -> None:
        """IccPowerOn with this bPowerSelect. Raises one of ``FAILURES`` unless a sound ATR comes;
        ``_untouched`` then if the card is active all the same."""
        self._select = select
        self._reset()
        atr = self._atr()
        if _is_broken(atr):
            raise self._malformed("; ".join(atr.warnings))

    def _reset(self) -> bytes:
        self.raw, self._untouched = b"", False
        until = time.monotonic() + BUSY_S
        while True:
            try:
                self.raw = self.commands.power_on(self._select)
                break
            except SlotBusy:  # with what it does by itself when a card is put in
                if time.monotonic() >= until:
                    raise
                time.sleep(REST_S)
        self._untouched = True
        return self.raw

    def _off(self) -> None:
        with suppress(*FAILURES, UnsupportedByReader):
            self.commands.power_off()

    def _power_cycle(self) -> None:
        self._off()
        self._activate([self._select])

    def _check_present(self, heard: int) -> None:
        """Raise CardRemoved if the reader has said since it had said ``heard`` that the slot is
        empty. Another card, or the same that bounced, is as good: whoever minds will be told."""
        conversation, slot = self.commands.conversation, self.commands.slot
        conversation.transport.take_events()
        cards = conversation.cards
        if cards.heard != heard and cards[slot].presence is Presence.EMPTY:
            raise conversation.card_removed(slot)

    def _atr(self) -> Atr:
        if not self.raw:
            raise CardMute(
                f"{self.commands.name}: the card in slot {self.commands.slot} is active and "
                f"sent no ATR: a memory card?",
                reader=self.commands.name,
                slot=self.commands.slot,
            )
        try:
            return Atr.parse(self.raw)
        except MalformedAtr as error:
            raise self._malformed(str(error)) from None

    def _malformed(self, what: str) -> MalformedAtr:
        name, slot = self.commands.name, self.commands.slot
        return MalformedAtr(f"{name}: slot {slot}: {what}", reader=name, slot=slot)

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
        return self.commands.perform(lambda: self._agree(wanted, fidi))

    def _agree(self, wanted: Protocol | None, fidi: int | None) -> tuple[Atr, Agreement]:
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
        session = self.commands.conversation.cards.session(self.commands.slot)
        agreement = Agreement(protocol, fidi, timing, session=session)
        if protocol is Protocol.T1:
            agreement.extra_s = self._quirks.t1_timeout_extra_s
            if self.descriptor.exchange_level in BLOCKWISE:
                self._start_t1(atr, agreement)
            elif self._quirks.tpdu_escape:
                machine = make_t1(atr, self.descriptor, self.commands.name, len(TPDU_ESCAPE))
                machine.ifsd = MAX_IFS  # what the reader announced is not known
                agreement.by_escape = machine
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
        try:
            found = self._said_to_be_in_force()
        except (CommandFailed, TransportTimeout):  # it would say, and could not
            in_force = fidi
        else:
            if found is None:
                return wanted, fidi
            in_force = found.bmFindexDindex
            if isinstance(found, ProtocolDataT1) == (wanted is Protocol.T1):
                return wanted, in_force
        try:
            self.commands.set_parameters(protocol_data(atr, wanted, in_force))
        except (UnsupportedByReader, CommandFailed):
            raise UnsupportedByReader(
                f"{self.commands.name}: the reader negotiates by itself and has not agreed on "
                f"{wanted} with the card",
                reader=self.commands.name,
                slot=self.commands.slot,
            ) from None
        return wanted, in_force

    def _said_to_be_in_force(self) -> ProtocolDataT0 | ProtocolDataT1 | None:
        """The parameters that the reader says are in force; None if it does not say, or says
        nonsense (QEMU's announces no data and sends some).

        Raises:
            CommandFailed, TransportTimeout: It has such a command, and the command failed.
        """
        until = time.monotonic() + BUSY_S
        while True:
            try:
                parameters = self.commands.get_parameters()
            except SlotBusy:  # with its negotiation, still
                if time.monotonic() >= until:
                    raise
                time.sleep(REST_S)
            except (UnsupportedByReader, MalformedMessage):
                return None
            else:
                return None if isinstance(parameters, bytes) else parameters

    def _fidi_in_force(self, wanted: int) -> int:
        try:
            found = self._said_to_be_in_force()
        except (CommandFailed, TransportTimeout):
            found = None
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


def _is_refusal(error: CcidError) -> bool:
    """The reader finds a field of the command wrong (USB CCID rev 1.1, 6.2.6): it has no such
    voltage."""
    return 1 <= (error.bError or 0) <= 127


def _telling(error: CcidError) -> int:
    """How much the failure of a power-on tells, to be compared."""
    if isinstance(error, MalformedAtr):
        return 3
    if _is_refusal(error):
        return 0
    return 1 if isinstance(error, CardMute) else 2


def _is_broken(atr: Atr) -> bool:
    """Something of ``atr`` got lost or spoilt on its way, or its card is sloppy."""
    return (
        atr.tck_right is False
        or (atr.tck_expected and atr.tck is None)
        or len(atr.historical) < atr.raw[1] & 0x0F
    )
