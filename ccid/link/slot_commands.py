"""One method per CCID command of a slot: USB CCID rev 1.1, 6.1.

Here a reply's bStatus and bError become a value or an error of :mod:`ccid.errors`.
"""

from __future__ import annotations

import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ccid.codec.messages import (
    MESSAGE_HEADER,
    Command,
    PC_to_RDR_Escape,
    PC_to_RDR_GetParameters,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccClock,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_Mechanical,
    PC_to_RDR_ResetParameters,
    PC_to_RDR_Secure,
    PC_to_RDR_SetDataRateAndClockFrequency,
    PC_to_RDR_SetParameters,
    PC_to_RDR_T0APDU,
    RDR_to_PC_DataBlock,
    RDR_to_PC_DataRateAndClockFrequency,
    RDR_to_PC_Escape,
    RDR_to_PC_Parameters,
    RDR_to_PC_SlotStatus,
    Reply,
)
from ccid.codec.messages.headers import DATA_BLOCK, XFR_BLOCK, reply_header
from ccid.codec.messages.structures import PinData, ProtocolData, ProtocolDataT0, ProtocolDataT1
from ccid.codes import (
    ClockStatus,
    IccStatus,
    Level,
    PowerSelect,
)
from ccid.errors import (
    CardAbsent,
    CardMute,
    CcidError,
    CommandFailed,
    MalformedMessage,
    ReaderReset,
    UnsupportedByReader,
)
from ccid.iso7816.apdu import Bytes, octets
from ccid.iso7816.secret_instructions import UNSECRET_INS
from ccid.iso7816.timing import ACTIVATION_S
from ccid.known.quirks import Quirks
from ccid.link.block_ways import BlockWay, PatienceS
from ccid.link.card_state import Power, Session
from ccid.link.conversation import Conversation, seconds
from ccid.link.pipe import Pipe
from ccid.link.raw_commands import RawCommand
from ccid.link.reply_errors import reply_error
from ccid.link.reply_matching import RawReply, whole

DEFAULT_TIMEOUT_S = 3.0
"""For commands that do not wait for a card."""
ESCAPE_TIMEOUT_S = 30.0
"""For an Escape: the maker of the reader decides what it does."""
STATUS_S = 5.0
"""Longest time of GetSlotStatus and IccPowerOff, with all time extensions (of an ICCD device: with
all busy answers)."""
SPECIFIC = struct.Struct("<BH")
"""bBWI and wLevelParameter."""
MACOS = sys.platform == "darwin"

R = TypeVar("R", bound=Reply)
T = TypeVar("T")


class SlotStatus(NamedTuple):
    """What GetSlotStatus and its like say."""

    icc: IccStatus
    clock: ClockStatus


class SlotCommands(ABC):
    """The commands of one slot, whatever carries them. The rooms above use this interface alone.

    Args:
        conversation: With the reader.
        slot: bSlot.
        quirks: What is known of this slot of the reader.

    Attributes:
        status_timeout_s: Seconds that GetSlotStatus may take.
        detector: Where a card detector of another interface tells for this slot: finds its
            commands, None while that interface is not open.
    """

    status_timeout_s = DEFAULT_TIMEOUT_S

    def __init__(self, conversation: Conversation, slot: int, quirks: Quirks | None = None) -> None:
        self.conversation = conversation
        self.slot = slot
        self.name = conversation.name
        self.quirks = quirks or Quirks()
        self.status_timeout_s = max(self.status_timeout_s, self.quirks.status_timeout_s or 0.0)
        self.detector: Callable[[], SlotCommands | None] | None = None
        self._remembered = IccStatus.INACTIVE
        """For presence-by-power."""
        self._gave_power = False
        """IccPowerOn was sent, and IccPowerOff brought no success since then: perhaps it was
        cancelled before it was sent."""

    def perform(
        self, work: Callable[[], T], limit_s: float | None = None, session: Session | None = None
    ) -> T:
        """Do ``work``: several commands that follow each other undisturbed, and are bounded by
        time and cancelled as one. :meth:`ccid.link.conversation.Conversation.perform` says the
        rest."""
        return self.conversation.perform(self.slot, work, limit_s, session)

    def cancel(self) -> bool:
        """End what another thread has under way here; False if there is nothing."""
        return self.conversation.cancel(self.slot)

    @abstractmethod
    def give_up(self) -> None:
        """Note that the reader may still work on a command that no thread waits for any more."""

    @property
    @abstractmethod
    def is_given_up(self) -> bool:
        """The reader may still work on a command that no thread waits for any more."""

    def was_reset(self) -> None:
        """The reader was reset: the card has no power."""
        if self._remembered is IccStatus.ACTIVE:
            self._remembered = IccStatus.INACTIVE
        self._gave_power = False

    @property
    def may_have_power(self) -> bool:
        """The card got power here, and did not lose it here; or the reader may still work on a
        command that no thread waits for any more. IccPowerOff ends both."""
        return self._gave_power or self.is_given_up

    @abstractmethod
    def abort(self) -> None:
        """End whatever the slot works on."""

    @abstractmethod
    def _send(self, command: Command, reply: type[R], timeout_s: float = DEFAULT_TIMEOUT_S) -> R:
        """Send ``command`` and decode its reply."""

    @abstractmethod
    def xfr_block(
        self,
        abData: Bytes,
        *,
        timeout_s: float,
        bBWI: int = 0,
        wLevelParameter: int = Level.WHOLE,
    ) -> tuple[bytes, int]:
        """XfrBlock (6.1.4): a block to the card; returns the one that comes back and
        bChainParameter.

        Args:
            abData: The block.
            timeout_s: Seconds to wait, before extensions.
            bBWI: Multiplier of the block waiting time (T=1).
            wLevelParameter: Its part in an extended APDU, or bytes expected at character level.

        Raises:
            CardAbsent, CardMute, CommandFailed, SlotBusy.
        """

    @abstractmethod
    def apdu_way(
        self,
        patience_s: PatienceS,
        more: Callable[[bytes, int], bytes],
        session: Session | None = None,
    ) -> BlockWay:
        """:meth:`xfr_block` for a whole APDU in one block, made once and used often.

        Args:
            patience_s: How many seconds to wait for the reply to an APDU, before extensions.
            more: Called with abData and bChainParameter where that is not 0; returns the whole.
            session: The power-up that the APDUs are for; None for any.
        """

    def t1_block_way(
        self, patience_s: PatienceS, session: Session | None = None
    ) -> BlockWay | None:
        """:meth:`xfr_block` for a block of T=1 with bBWI 0, made once and used often; None where
        there is no such way.

        Args:
            patience_s: How many seconds to wait for the answer to a block, before extensions.
            session: The power-up that the blocks are for; None for any.
        """
        return None

    def turn(self) -> AbstractContextManager[Any]:
        """Hold this to have several commands follow each other undisturbed."""
        turn: AbstractContextManager[Any] = self.conversation.turn(self.slot)
        return turn

    def _specific(self, bBWI: int, wLevelParameter: int) -> bytes:
        """Bytes 7 to 9 of XfrBlock. Raises MalformedMessage if a value does not fit."""
        try:
            return SPECIFIC.pack(bBWI, wLevelParameter)
        except struct.error:
            fits = isinstance(bBWI, int) and 0 <= bBWI <= 0xFF
            field, value = ("wLevelParameter", wLevelParameter) if fits else ("bBWI", bBWI)
        raise MalformedMessage(
            f"{self.name}: {field} {value} does not fit", field=field, reader=self.name
        )

    # Power and presence -----------------------------------------------------------------------

    def power_on(self, bPowerSelect: int = PowerSelect.AUTOMATIC) -> bytes:
        """IccPowerOn (6.1.1): activate or reset the card; returns its ATR.

        Raises:
            CardAbsent, CardMute, CommandFailed.
        """
        if self.quirks.power_off_before_on:
            self.power_off()
        try:
            return self._power_on(bPowerSelect)
        except (CardMute, CommandFailed) as error:
            escape = self.quirks.power_on_escape
            if escape is None or error.bError != self.quirks.power_on_escape_error:
                raise
            try:
                self.escape(escape)
            except (CommandFailed, UnsupportedByReader) as other:
                raise error from other  # which tells more
            return self._power_on(bPowerSelect)

    def _power_on(self, bPowerSelect: int) -> bytes:
        command = PC_to_RDR_IccPowerOn(bSlot=self.slot, bPowerSelect=bPowerSelect)
        with self._rising():
            try:
                reply = self._send(command, RDR_to_PC_DataBlock, ACTIVATION_S)
            except (CardAbsent, CardMute, CommandFailed):
                self._remembered = IccStatus.ABSENT
                raise
            except UnsupportedByReader as error:  # every reader has this command: no reason given
                raise self._unpowered(error) from error
            if not reply.abData and reply.icc_status is not IccStatus.ACTIVE:
                raise self._unpowered(reply)
        self._remembered = IccStatus.ACTIVE
        return reply.abData

    def _unpowered(self, told: CcidError | Reply) -> CcidError:
        """The error for a power-on that failed, and ``told`` gives no reason."""
        self._remembered = IccStatus.ABSENT
        absent = (told.bStatus or 0) & 0x03 == IccStatus.ABSENT
        kind, what = CardAbsent if absent else CommandFailed, "the card got no power"
        return kind(
            f"{self.name}: slot {self.slot}: {'there is no card' if absent else what}",
            reader=self.name,
            slot=self.slot,
            **{field: getattr(told, field) for field in ("bSeq", "bStatus", "bError")},
        )

    @contextmanager
    def _rising(self) -> Iterator[None]:
        """Hold this while the card is given power: a session of it begins.

        Raises:
            ReaderReset: Another thread noticed a reset meanwhile: before or after the card got
                its power.
        """
        self.conversation.powering(self.slot)
        self._gave_power = True
        try:
            yield
        except CardAbsent:
            self.conversation.cards.saw(self.slot, IccStatus.ABSENT)
            raise
        cards = self.conversation.cards
        cards.answered(self.slot)
        if cards[self.slot].power is Power.LOST:  # the session that begins here
            raise ReaderReset(
                f"{self.name} was reset while the card in slot {self.slot} was given power",
                reader=self.name,
                slot=self.slot,
            )

    def power_off(self) -> SlotStatus:
        """IccPowerOff (6.1.2): deactivate the card. Its session is over."""
        self.conversation.cards.powered_off(self.slot)
        if self._remembered is IccStatus.ACTIVE:
            self._remembered = IccStatus.INACTIVE
        command = PC_to_RDR_IccPowerOff(bSlot=self.slot)
        try:
            status = self.perform(lambda: self._status(command, self.status_timeout_s), STATUS_S)
        except CardAbsent:
            self._gave_power = False
            raise
        self._gave_power = False
        return status

    def slot_status(self, at_least_s: float = 0.0) -> SlotStatus:
        """GetSlotStatus (6.1.3). That there is no card, or a mute one, is a status, no error.

        Args:
            at_least_s: Seconds that the reader may take, if more than usual.
        """
        status = self._current_status(at_least_s)
        self.conversation.cards.saw(self.slot, status.icc)
        return status

    def _current_status(self, at_least_s: float = 0.0) -> SlotStatus:
        if self.quirks.presence_by_power:
            with self.conversation.turn(self.slot):  # not in the middle of a power-up
                return SlotStatus(self._remembered, ClockStatus.STOPPED_UNKNOWN)
        if self.detector is not None and (other := self.detector()) is not None:
            return self._detected(other.slot_status())
        return self._slot_status(at_least_s)

    def _detected(self, other: SlotStatus) -> SlotStatus:
        """The status of a slot without card detector, by that of one that has it."""
        if other.icc is IccStatus.ABSENT:
            return other
        own = self._slot_status()
        return own._replace(icc=IccStatus.INACTIVE) if own.icc is IccStatus.ABSENT else own

    def _slot_status(self, at_least_s: float = 0.0) -> SlotStatus:
        if MACOS and self.quirks.event_before_status_s:
            wait_ms = int(self.quirks.event_before_status_s * 1000)
            self.conversation.transport.take_events(wait_ms)
        timeout_s = max(self.status_timeout_s, seconds(at_least_s, "at_least_s"))
        command = PC_to_RDR_GetSlotStatus(bSlot=self.slot)
        try:
            return self.perform(lambda: self._status(command, timeout_s), max(STATUS_S, timeout_s))
        except (CardAbsent, CardMute) as error:
            return SlotStatus(IccStatus((error.bStatus or 0) & 0x03), ClockStatus.STOPPED_UNKNOWN)

    def _status(self, command: Command, timeout_s: float = DEFAULT_TIMEOUT_S) -> SlotStatus:
        reply = self._send(command, RDR_to_PC_SlotStatus, timeout_s)
        return SlotStatus(reply.icc_status, ClockStatus(reply.bClockStatus & 0x03))

    # The PIN ----------------------------------------------------------------------------------

    def secure(
        self,
        bPINOperation: int,
        structure: PinData,
        *,
        timeout_s: float,
        bBWI: int = 0,
        wLevelParameter: int = Level.WHOLE,
    ) -> tuple[bytes, int]:
        """Secure (6.1.11): have the PIN entered at the reader; returns the card's answer and
        bChainParameter.

        Raises:
            CommandFailed: With bError PIN_CANCELLED or PIN_TIMEOUT, among others.
        """
        command = PC_to_RDR_Secure(
            bSlot=self.slot,
            bBWI=bBWI,
            wLevelParameter=wLevelParameter,
            bPINOperation=bPINOperation,
            abPINDataStructure=structure,
        )
        reply = self._send(command, RDR_to_PC_DataBlock, timeout_s)
        return reply.abData, reply.bChainParameter

    # Parameters -------------------------------------------------------------------------------

    def get_parameters(self) -> ProtocolData:
        """GetParameters (6.1.5): what is in force now."""
        return self._parameters(PC_to_RDR_GetParameters(bSlot=self.slot))

    def reset_parameters(self) -> ProtocolData:
        """ResetParameters (6.1.6): back to the reader's defaults, which it returns."""
        return self._parameters(PC_to_RDR_ResetParameters(bSlot=self.slot))

    def set_parameters(self, structure: ProtocolDataT0 | ProtocolDataT1) -> ProtocolData:
        """SetParameters (6.1.7); returns what is in force now.

        Raises:
            UnsupportedByReader: The reader sets them itself.
            CommandFailed: bError 1 to 127 is the offset of a value that it refuses.
        """
        return self._parameters(
            PC_to_RDR_SetParameters(
                bSlot=self.slot,
                bProtocolNum=int(isinstance(structure, ProtocolDataT1)),
                abProtocolDataStructure=structure,
            )
        )

    def _parameters(self, command: Command) -> ProtocolData:
        return self._send(command, RDR_to_PC_Parameters).abProtocolDataStructure

    def set_data_rate_and_clock_frequency(self, clock_khz: int, rate_bps: int) -> tuple[int, int]:
        """SetDataRateAndClockFrequency (6.1.14), in kHz and bit/s; returns them as they are."""
        reply = self._send(
            PC_to_RDR_SetDataRateAndClockFrequency(
                bSlot=self.slot, dwClockFrequency=clock_khz, dwDataRate=rate_bps
            ),
            RDR_to_PC_DataRateAndClockFrequency,
        )
        return reply.dwClockFrequency, reply.dwDataRate

    # The rest ---------------------------------------------------------------------------------

    def escape(self, abData: bytes, timeout_s: float = ESCAPE_TIMEOUT_S) -> bytes:
        """Escape (6.1.8): something of the reader's maker.

        Raises:
            UnsupportedByReader: This reader has no Escape.
        """
        command = PC_to_RDR_Escape(bSlot=self.slot, abData=abData)
        return self._send(command, RDR_to_PC_Escape, timeout_s).abData

    def icc_clock(self, bClockCommand: int) -> SlotStatus:
        """IccClock (6.1.9): stop or restart the card's clock."""
        return self._status(PC_to_RDR_IccClock(bSlot=self.slot, bClockCommand=bClockCommand))

    def t0_apdu(
        self, *, bClassGetResponse: int | None = None, bClassEnvelope: int | None = None
    ) -> SlotStatus:
        """T0APDU (6.1.10): class bytes of the reader's own GET RESPONSE and ENVELOPE; None
        leaves one as it is."""
        changes = (bClassGetResponse is not None) | (bClassEnvelope is not None) << 1
        return self._status(
            PC_to_RDR_T0APDU(
                bSlot=self.slot,
                bmChanges=changes,
                bClassGetResponse=0 if bClassGetResponse is None else bClassGetResponse,
                bClassEnvelope=0 if bClassEnvelope is None else bClassEnvelope,
            )
        )

    def mechanical(self, bFunction: int) -> SlotStatus:
        """Mechanical (6.1.12): accept, eject, capture, lock or unlock the card."""
        command = PC_to_RDR_Mechanical(bSlot=self.slot, bFunction=bFunction)
        return self._status(command, ESCAPE_TIMEOUT_S)


class Commands(SlotCommands):
    """The commands of one slot as CCID messages.

    Args:
        pipe: The conversation with the reader.
        slot: bSlot.
        quirks: What is known of this slot of the reader.
    """

    def __init__(self, pipe: Pipe, slot: int, quirks: Quirks | None = None) -> None:
        super().__init__(pipe, slot, quirks)
        self.pipe = pipe

    def give_up(self) -> None:
        self.pipe.give_up(self.slot)

    @property
    def is_given_up(self) -> bool:
        return self.pipe.is_given_up(self.slot)

    def abort(self) -> None:
        """The ABORT pair (5.3.1 and 6.1.13)."""
        self.pipe.abort(self.slot)

    # Sending ----------------------------------------------------------------------------------

    def _send(self, command: Command, reply: type[R], timeout_s: float = DEFAULT_TIMEOUT_S) -> R:
        """Send ``command`` and decode its reply. Raises what :meth:`failure` makes of it."""
        wire = command.build()
        raw = self.pipe.transact(
            RawCommand(
                self.slot,
                command.bMessageType,
                wire[7:MESSAGE_HEADER],
                wire[MESSAGE_HEADER:],
                reply.bMessageType,
                timeout_s,
            )
        )
        if raw.failed:
            raise self.failure(raw)
        return reply.parse(
            reply_header.pack(
                raw.bMessageType,
                len(raw.data),
                self.slot,
                raw.bSeq,
                raw.bStatus,
                raw.bError,
                raw.parameter,
            )
            + raw.data
        )

    def failure(self, reply: RawReply) -> CcidError:
        """The error for a reply that says "failed" (USB CCID rev 1.1, table 6.2-2), or that
        brings no response APDU where one is due."""
        return reply_error(
            self.name, self.slot, len(reply.data), reply.bSeq, reply.bStatus, reply.bError
        )

    # Blocks -----------------------------------------------------------------------------------

    def xfr_block(
        self,
        abData: Bytes,
        *,
        timeout_s: float,
        bBWI: int = 0,
        wLevelParameter: int = Level.WHOLE,
    ) -> tuple[bytes, int]:
        specific, abData = self._specific(bBWI, wLevelParameter), octets(abData)
        raw = self.pipe.transact(
            RawCommand(self.slot, XFR_BLOCK, specific, abData, DATA_BLOCK, timeout_s)
        )
        if raw.failed:
            raise self.failure(raw)
        return raw.data, raw.parameter

    def apdu_way(
        self,
        patience_s: PatienceS,
        more: Callable[[bytes, int], bytes],
        session: Session | None = None,
    ) -> BlockWay:
        result = partial(whole, failure=self.failure, more=more)
        return self.pipe.way(self.slot, patience_s, result, session, UNSECRET_INS)

    def t1_block_way(self, patience_s: PatienceS, session: Session | None = None) -> BlockWay:
        return self.pipe.way(self.slot, patience_s, self._block_of, session)

    def _block_of(self, reply: RawReply) -> bytes:
        """The block of T=1 that ``reply`` brings."""
        if reply.failed:
            raise self.failure(reply)
        return reply.data
