"""Activation of a card: power-up, then agreement on protocol, speed and parameters.

The steps are voltage, ATR, protocol, speed (by PPS if the host has to send the PPS), parameters,
IFSD. After a failure the card is reset, and the next attempt uses a lower speed; the last attempt
uses the default speed, which every card supports (ISO/IEC 7816-3:2006 6.3 and 9). So a wrong speed
does not make a card unusable.
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
from ccid.iso7816.protocol_runner import run
from ccid.iso7816.timing import Timing, pps_timeout
from ccid.known.quirks.vocabulary import TPDU_ESCAPE
from ccid.link.card_state import Presence
from ccid.link.slot_commands import SlotCommands
from ccid.session.exchange.agreement import Agreement
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
"""Errors after which a power-on is tried again: the card or the line to the card failed. A stall is
the only error that an ICCD device of version A can report."""
REST_S = 0.1
"""Seconds without power before a power-on is tried again: contacts stop bouncing, and a contactless
card moves further into the field."""
BUSY_S = 2.0
"""Seconds that a reader may be busy with a card by itself before a power-on."""


T = TypeVar("T")


class Activation:
    """The activation of a card: in one step (:meth:`run`), or in two steps, :meth:`power_up` and
    :meth:`agree`, for a caller that gets two requests (pcscd).

    Args:
        commands: The commands of the slot.
        descriptor: The class descriptor of the reader.
        rates: The answer to GET_DATA_RATES, in bit/s.
        first_voltage: The first voltage to try if the host chooses the voltage; None for 5 V.

    Attributes:
        raw: The ATR of the last power-up; empty without one.
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
        self._select = PowerSelect.AUTOMATIC
        """bPowerSelect of the last power-on."""
        self._retry_at: PowerSelect | None = None
        """bPowerSelect for one more power-on after all failed; None for none."""
        self._is_fresh = False
        """The card is active, and nothing was sent to the card after its ATR."""

    def run(self, wanted: Protocol | None) -> tuple[Atr, Agreement]:
        """Power the card up, and agree on protocol and parameters. After a failure the card is
        powered off.

        Args:
            wanted: The required protocol; None for the best.

        Returns:
            The ATR and the agreement.

        Raises:
            The errors of :meth:`power_up` and :meth:`agree`.
        """
        return self._or_off(lambda: self._powered_and_agreed(wanted))

    def _powered_and_agreed(self, wanted: Protocol | None) -> tuple[Atr, Agreement]:
        self._power_up()
        return self.agree(wanted)

    def _or_off(self, work: Callable[[], T]) -> T:
        """Do ``work`` as one operation; after a failure power the card off, even if the time of the
        operation is over."""
        with self.commands.conversation.turn(self.commands.slot):
            try:
                return self.commands.perform(work)
            except BaseException:
                with suppress(CcidError):
                    self.commands.power_off()
                raise

    # Power ------------------------------------------------------------------------------------

    def power_up(self) -> bytes:
        """The first step: activate or reset the card. After a failure the card is powered off.

        The voltages are tried in turn until the card answers; if the class indicator of the ATR
        requires another voltage, the card is powered again at that voltage. A card that never
        answers, or answers with a damaged ATR, is powered off and on once more: the contacts may
        have bounced, or a contactless card was at the edge of the field.

        Returns:
            The ATR. The ATR may be malformed (:meth:`agree` then raises MalformedAtr), or empty for
            a card that is active without an ATR.

        Raises:
            CardAbsent, CardMute, CommandFailed: No card answers.
            MalformedAtr: The card sent a malformed ATR, and no ATR in the second attempt.
            CardRemoved: The reader reported the removal of the card between the attempts.
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
        """Power the card on with each value of ``selects`` in turn; after failures once more with
        the most promising value. A card that is then active stays active, whatever its ATR."""
        heard = self.commands.conversation.cards.heard
        try:
            self._power_on_with_any(selects)
        except FAILURES as first:
            if self._retry_at is None:
                raise
            self._off()
            time.sleep(REST_S)
            self._check_present(heard)
            try:
                self._power_on(self._retry_at)
            except FAILURES as second:
                if self._is_fresh:
                    return
                if _severity(second) > _severity(first):
                    raise
                raise first from second

    def _power_on_with_any(self, selects: Iterable[PowerSelect]) -> None:
        """Power the card on with each value of ``selects`` in turn, until the card sends a sound
        ATR.

        Raises:
            The most severe failure; ``_retry_at`` is then the value for one more power-on.
        """
        self._retry_at = None
        failures: list[CcidError] = []
        retry_at: PowerSelect | None = None
        for select in selects:
            if failures:
                self._off()
            try:
                self._power_on(select)
                return
            except FAILURES as failure:
                if _is_absent(failure) or isinstance(failure, SlotBusy):
                    raise
                failures.append(failure)
            if self._is_fresh:  # the card is active; its ATR is malformed or missing
                retry_at = select
                if self.raw:
                    break
            elif retry_at is None and not _is_refusal(failures[-1]):
                retry_at = select
        self._retry_at = retry_at
        raise max(failures, key=_severity)

    def _power_on(self, select: PowerSelect) -> None:
        """IccPowerOn with this bPowerSelect.

        Raises:
            One of ``FAILURES`` unless the card sends a sound ATR; ``_is_fresh`` is then True if the
            card is active.
        """
        self._select = select
        self._reset()
        atr = self._atr()
        if _is_damaged(atr):
            raise self._malformed("; ".join(atr.warnings))

    def _reset(self) -> None:
        """IccPowerOn, at the voltage of the last power-on."""
        self.raw, self._is_fresh = b"", False
        until = time.monotonic() + BUSY_S
        while True:
            try:
                self.raw = self.commands.power_on(self._select)
                break
            except SlotBusy:  # the reader activates the card by itself after the insertion
                if time.monotonic() >= until:
                    raise
                time.sleep(REST_S)
        self._is_fresh = True

    def _off(self) -> None:
        with suppress(*FAILURES, UnsupportedByReader):
            self.commands.power_off()

    def _power_cycle(self) -> None:
        self._off()
        self._activate([self._select])

    def _check_present(self, heard: int) -> None:
        """Raise CardRemoved if the reader has sent notifications since their count was ``heard``,
        and the slot is empty. A card that is in the slot again is used, the same or another one:
        the state of the card tells the other holders."""
        conversation, slot = self.commands.conversation, self.commands.slot
        conversation.transport.take_events()
        cards = conversation.cards
        if cards.heard != heard and cards[slot].presence is Presence.EMPTY:
            raise conversation.card_removed(slot)

    def _atr(self) -> Atr:
        """The parsed ATR of the last power-up.

        Raises:
            CardMute: The card is active and sent no ATR.
            MalformedAtr: The ATR cannot be parsed.
        """
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
        """The second step: agree on protocol, speed and parameters with the card that
        :meth:`power_up` activated. A card that got any block after its ATR is reset first.

        Args:
            wanted: The required protocol; None for the best.
            fidi: The required Fi and Di, coded as TA1; None for the highest speed that works.

        Returns:
            The ATR of the last reset, and the agreement.

        Raises:
            CardAbsent, CardMute: No card answers.
            MalformedAtr: The ATR cannot be parsed.
            UnsupportedByReader: Card and reader have no protocol or speed in common.
            CommandFailed, ProtocolError: All attempts failed; this is the error of the last one.
        """
        return self.commands.perform(lambda: self._agree(wanted, fidi))

    def _agree(self, wanted: Protocol | None, fidi: int | None) -> tuple[Atr, Agreement]:
        if not self._is_fresh:
            self._power_cycle()
        atr = self._atr()
        attempts = list(self._attempts(atr, wanted, fidi))
        for attempt in attempts[:-1]:
            try:
                return self._agreed(atr, *attempt)
            except CardAbsent:
                raise
            except (CardMute, CommandFailed, ProtocolError, UnsupportedByReader) as error:
                if _is_absent(error):
                    raise
                self._power_cycle()
                atr = self._atr()
        return self._agreed(atr, *attempts[-1])

    def _attempts(
        self, atr: Atr, wanted: Protocol | None, fidi: int | None
    ) -> Iterator[tuple[Protocol, int]]:
        """Protocol and speed of each attempt, in order."""
        no_pps = self._quirks.no_pps
        for protocol in choose_protocol(atr, self.descriptor, wanted, no_pps=no_pps):
            if fidi is not None:
                yield protocol, fidi
                continue
            for speed in speeds(atr, self.descriptor, self.rates, no_pps=no_pps):
                yield protocol, speed

    def _agreed(self, atr: Atr, protocol: Protocol, fidi: int) -> tuple[Atr, Agreement]:
        """One attempt right after a reset: PPS, parameters and IFSD for a protocol and a speed.
        Returns the ATR of the last reset, and the agreement."""
        self._is_fresh = False
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
                final = protocol is not Protocol.T1 or _is_absent(error)
                if final or not self._quirks.reset_if_parameters_fail:
                    raise
                atr, fidi = self._reset_twice()
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
                machine.ifsd = MAX_IFS  # the IFSD that the reader announced is unknown
                agreement.by_escape = machine
        return atr, agreement

    def _reset_twice(self) -> tuple[Atr, int]:
        """Reset the card twice, cold and warm, without SetParameters. Returns the ATR, and the Fi
        and Di in force."""
        self._power_cycle()
        self._reset()
        self._is_fresh = False
        atr = self._atr()
        return atr, self._fidi_in_force(DEFAULT_FIDI if atr.ta1 is None else atr.ta1)

    @property
    def _clock_hz(self) -> int:
        return self.descriptor.dwDefaultClock * 1000

    def _pps(self, atr: Atr, protocol: Protocol, fidi: int) -> int:
        """Request protocol and speed from the card by PPS (ISO/IEC 7816-3:2006 9). Returns the Fi
        and Di in force after that, coded as TA1."""
        asked = pps.request(protocol, fidi if fidi != DEFAULT_FIDI else None)
        timeout_s = pps_timeout(Timing.of(atr, self._clock_hz))
        if self.descriptor.exchange_level is ExchangeLevel.CHARACTER:
            response, _ = self.commands.xfr_block(asked, timeout_s=timeout_s, wLevelParameter=2)
            if len(response) == 2:  # PPSS and PPS0, which tells how many bytes follow
                missing = pps.length(response[1]) - len(response)
                response += self.commands.xfr_block(
                    b"", timeout_s=timeout_s, wLevelParameter=missing
                )[0]
        else:
            response, _ = self.commands.xfr_block(asked, timeout_s=timeout_s)
        return pps.confirmed(asked, response, self.commands.name)

    def _set_parameters(self, atr: Atr, protocol: Protocol, fidi: int) -> tuple[Protocol, int]:
        """Tell the reader the parameters in force, or those that the reader has to negotiate.
        Returns the protocol and the Fi and Di in force after that."""
        try:
            self.commands.set_parameters(protocol_data(atr, protocol, fidi))
        except UnsupportedByReader:
            # The reader takes no parameters; the default protocol of the card is in force.
            if protocol != atr.default_protocol and self.descriptor.exchange_level in BLOCKWISE:
                raise
        except CommandFailed as error:
            if not _is_refusal(error):
                raise
            return protocol, self._fidi_in_force(fidi)  # the reader does not change this value
        return protocol, fidi

    def _negotiated(self, atr: Atr, wanted: Protocol, fidi: int) -> tuple[Protocol, int]:
        """The protocol and the Fi and Di that a reader with automatic negotiation agreed on with
        the card. At APDU level the host need not know them. At the levels below the host has to
        know them, and requires the protocol ``wanted`` by SetParameters if necessary."""
        common = [t for t in atr.protocols if self.descriptor.dwProtocols >> t & 1]
        if self.descriptor.exchange_level not in BLOCKWISE or len(common) < 2:
            return wanted, fidi  # the reader has only one protocol to choose
        try:
            found = self._reported_parameters()
        except (CommandFailed, TransportTimeout):  # GetParameters is supported and failed
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

    def _reported_parameters(self) -> ProtocolDataT0 | ProtocolDataT1 | None:
        """The parameters in force as the reader reports them by GetParameters; None if the reader
        does not support GetParameters or sends a wrong reply (the reader of QEMU announces no data
        and sends data).

        Raises:
            CommandFailed, TransportTimeout: The reader supports GetParameters, and GetParameters
                failed.
        """
        until = time.monotonic() + BUSY_S
        while True:
            try:
                parameters = self.commands.get_parameters()
            except SlotBusy:  # the negotiation of the reader is under way
                if time.monotonic() >= until:
                    raise
                time.sleep(REST_S)
            except (UnsupportedByReader, MalformedMessage):
                return None
            else:
                return None if isinstance(parameters, bytes) else parameters

    def _fidi_in_force(self, wanted: int) -> int:
        """The Fi and Di in force as the reader reports them; ``wanted`` without a report."""
        try:
            found = self._reported_parameters()
        except (CommandFailed, TransportTimeout):
            found = None
        return wanted if found is None else found.bmFindexDindex

    def _start_t1(self, atr: Atr, agreement: Agreement) -> None:
        """Begin T=1 with the card: announce IFSD, unless the reader does."""
        machine = make_t1(atr, self.descriptor, self.commands.name)
        agreement.t1 = machine
        ifsd = choose_ifsd(self.descriptor, machine)
        if self.descriptor.features & Features.AUTO_IFSD:
            machine.ifsd = ifsd  # the reader announces this IFSD to the card
            return
        from ccid.session.exchange.block_links import BlockLink, CharacterBlockLink

        character = self.descriptor.exchange_level is ExchangeLevel.CHARACTER
        link = (CharacterBlockLink if character else BlockLink)(self.commands, agreement)
        run(machine.announce_ifsd(ifsd), link)


def _is_absent(error: CcidError) -> bool:
    """True if the reply says that no card is in the slot."""
    return (error.bStatus or 0) & 0x03 == IccStatus.ABSENT


def _is_refusal(error: CcidError) -> bool:
    """True if the reader refuses a field of the command (USB CCID rev 1.1, 6.2.6): for IccPowerOn
    the voltage, for SetParameters a parameter."""
    return 1 <= (error.bError or 0) <= 127


def _severity(error: CcidError) -> int:
    """The rank of a failed power-on; the failure with the highest rank is reported."""
    if isinstance(error, MalformedAtr):
        return 3
    if _is_refusal(error):
        return 0
    return 1 if isinstance(error, CardMute) else 2


def _is_damaged(atr: Atr) -> bool:
    """True if bytes of ``atr`` are lost or wrong: by a bad line, or because the card violates the
    standard."""
    return (
        atr.tck_right is False
        or (atr.tck_expected and atr.tck is None)
        or len(atr.historical) < atr.raw[1] & 0x0F
    )
