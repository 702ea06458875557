"""A card: powered, its ATR read, protocol and parameters agreed, ready for APDUs.

Theory of operation. A card object holds for one power-up of its card, the session that its
agreement names. What becomes of the card is decided elsewhere (:mod:`ccid.link.card_state`). Here
that decision becomes an error, which ends the object: it lets go of its slot, and every later call
raises the same error. The object asks before each command, and after each error that carries
bmICCStatus. A reset that does not succeed ends it, too: the card then has no power, or nobody knows
what is agreed with it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from ccid.codes import IccStatus, Protocol
from ccid.errors import (
    CardAbsent,
    CardDisconnected,
    CardMute,
    CardRemoved,
    CardReset,
    CcidError,
    CommandFailed,
    ReaderClosed,
    ReaderForked,
    ReaderRemoved,
    UnsupportedByReader,
)
from ccid.iso7816.apdu import Bytes
from ccid.iso7816.atr import Atr
from ccid.iso7816.t0 import SW_OK
from ccid.session.exchange import answering, choose
from ccid.session.exchange.agreement import Agreement

if TYPE_CHECKING:
    from ccid.device.slot import Slot
    from ccid.session.activation import Activation

logger = logging.getLogger("ccid.card")

NO_READER = (ReaderRemoved, ReaderClosed, ReaderForked)
"""Errors after which there is nothing to power off."""
WITH_STATUS = (CardAbsent, CardMute, CommandFailed, UnsupportedByReader)
"""Errors whose bStatus, where they have one, is the reader's word on the card (USB CCID rev 1.1,
6.2.6)."""


class Card:
    """A card, powered and ready for APDUs. Get one by :meth:`Slot.connect`.

    Attributes:
        slot: Where it is.
        atr: Its answer to reset.
        agreement: What card and reader agreed on: protocol, speed, times.
    """

    slot: Slot
    atr: Atr
    agreement: Agreement
    _transmit: Callable[[Bytes], bytes]

    def __init__(
        self,
        slot: Slot,
        protocol: Protocol | None,
        auto_get_response: bool = False,
        activation: Activation | None = None,
        fidi: int | None = None,
    ) -> None:
        """Power it up and agree with it; only agree where ``activation`` has powered it up."""
        self.slot = slot
        self._wanted = protocol
        self._auto_get_response = auto_get_response
        self._over: CcidError | None = None
        if activation is None:
            self._power_up()
        else:
            self.atr, self.agreement = activation.agree(protocol, fidi)
            self.arm()

    @property
    def protocol(self) -> Protocol:
        """T in force."""
        return self.agreement.protocol

    @property
    def fidi(self) -> int:
        """Fi and Di in force, coded as TA1; at APDU level and with automatic negotiation the
        reader knows better."""
        return self.agreement.fidi

    @property
    def timeout_s(self) -> float:
        """Seconds an answer may take, before extensions."""
        return self.agreement.timeout_s()

    def __repr__(self) -> str:
        return f"<ccid.Card {self.atr} {self.protocol} in {self.slot!r}>"

    # Talking to it ----------------------------------------------------------------------------

    def transmit(self, apdu: Bytes) -> bytes:
        """Send a command APDU; returns the response APDU, data and SW1 SW2.

        With T=0 on a reader at TPDU or character level the status words 61xx and 6Cxx come up
        as they are, as they do through PC/SC, unless :meth:`Slot.connect` was told otherwise.

        Args:
            apdu: Its bytes (ISO/IEC 7816-3:2006 12.1).

        Raises:
            CardRemoved: It was taken out since it was connected, even if one is back.
            CardReset: Another holder reset it or took its power, or it lost its power. Connect
                again.
            CardMute, CommandFailed, ProtocolError: It, or the reader, failed.
            CommandCancelled: :meth:`Slot.cancel` ended it.
            InvalidApdu, UnsupportedByReader: The reader cannot send that.
        """
        try:
            return self._transmit(apdu)
        except CardReset:  # raised before anything was sent
            self.look()
        except CcidError as error:
            self.judge(error)
            raise
        return self.transmit(apdu)  # it was this object that reset the card, in another thread

    def judge(self, error: CcidError) -> None:
        """End this object if ``error``, of a command to its card, says that the card is not what
        it was, and raise that instead.

        Raises:
            CardRemoved, CardReset: So it says.
            ReaderRemoved, ReaderClosed: The reader is gone, too.
        """
        if isinstance(error, CardRemoved):
            self._end(error)
            return
        bStatus = error.bStatus
        if bStatus is None or not isinstance(error, WITH_STATUS):
            return
        status = IccStatus(bStatus & 0x03)
        if status in (IccStatus.ABSENT, IccStatus.INACTIVE):
            with self.slot.turn():  # which raises that the reader is gone, if it is, too
                self.slot.reader.cards.saw(self.slot.index, status)
                why = self.ended(bSeq=error.bSeq, bStatus=bStatus, bError=error.bError)
                if why is not None:
                    raise copy.copy(why) from error

    def removed(self) -> None:
        """Note that it was taken out: every later call raises
        :class:`~ccid.errors.CardRemoved`."""
        self._end(self.slot.reader.pipe.card_removed(self.slot.index))

    def exclusive(self) -> AbstractContextManager[Any]:
        """Hold this to have several APDUs follow each other with nobody's between.

        Raises:
            CardRemoved: It was taken out since it was connected, even if one is back.
            CardReset: It was reset by another holder, or lost its power.
        """
        turn = self.slot.turn()
        with turn:
            self.look()
        return turn

    # Its life ---------------------------------------------------------------------------------

    def reset(self, *, cold: bool = False) -> Atr:
        """Reset it and negotiate anew; returns the new ATR. If that fails the card has no power,
        and this object is over: every later call raises :class:`~ccid.errors.CardReset`.

        Args:
            cold: Power it off first; else a warm reset (USB CCID rev 1.1, 6.1.1).

        Raises:
            CardRemoved: It was taken out since it was connected, even if one is back.
            CardMute, MalformedAtr, CommandFailed, ProtocolError: It was reset, and does not
                answer as it should.
        """
        with self.slot.turn():
            self.look()
            state = self.slot.reader.cards[self.slot.index]
            losses = state.losses
            try:
                if cold:
                    self.slot.commands.power_off()
                self._power_up()
                if state.losses != losses:  # in the middle of it
                    self.slot.commands.power_off()
                    raise self.slot.reader.pipe.card_removed(self.slot.index)
            except CcidError as error:
                if isinstance(error, NO_READER):
                    raise
                self._reset_failed(error)
            except BaseException:
                self._end(self._left_without_power())
                raise
            return self.atr

    def _reset_failed(self, error: CcidError) -> NoReturn:
        """End this object after a reset that ended in ``error``, and raise that; or that the
        card was removed, if that is what it says."""
        bStatus = error.bStatus or 0
        if isinstance(error, CardAbsent | CardRemoved) or bStatus & 0x03 == IccStatus.ABSENT:
            fields = {f: getattr(error, f) for f in ("bSeq", "bStatus", "bError")}
            gone = self.slot.reader.pipe.card_removed(self.slot.index, **fields)
            self._end(gone)
            raise copy.copy(gone) from error
        self._end(self._left_without_power())
        raise error

    def _left_without_power(self) -> CardReset:
        name, index = self.slot.reader.name, self.slot.index
        return CardReset(
            f"{name}: the last reset of the card in slot {index} did not succeed; connect again",
            reader=name,
            slot=index,
        )

    def disconnect(self) -> None:
        """Power it off and leave the slot to the next. More than once does no harm, nor after
        card or reader are gone."""
        if self._over is not None:
            return
        with suppress(*NO_READER), self.slot.turn():
            session = self.slot.reader.cards.session(self.slot.index)
            self._end(
                CardDisconnected(
                    f"{self.slot.reader.name}: this card was disconnected",
                    reader=self.slot.reader.name,
                    slot=self.slot.index,
                )
            )
            if session is self.agreement.session:  # else another gave it power, for another use
                with suppress(CardAbsent, CardMute):
                    self.slot.commands.power_off()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.disconnect()
        except CcidError as failed:
            if error is None:
                raise
            logger.warning("%s", failed)  # what went wrong first is what the caller is to know

    def _end(self, why: CcidError) -> None:
        """No more APDUs: every later call raises ``why``."""
        self._over = why
        self._transmit = self._refuse
        if self.slot.card is self:
            self.slot.card = None

    def ended(self, **fields: int | None) -> CcidError | None:
        """Why there can be no more APDUs; None if there can. Asks what became of the card.

        Args:
            **fields: Of the reply that gives the reason to ask, for the error.
        """
        session = self.agreement.session
        if self._over is None and session is not None:
            pipe, index = self.slot.reader.pipe, self.slot.index
            with self.slot.turn():
                fate = pipe.fate(index, session)
            if fate is not None:
                self._end(pipe.card_gone(index, fate, **fields))
        return self._over

    def look(self) -> None:
        """Raise why there can be no more APDUs, if there cannot."""
        why = self.ended()
        if why is not None:
            raise copy.copy(why)

    def _refuse(self, apdu: Bytes) -> NoReturn:
        assert self._over is not None
        raise copy.copy(self._over)

    # Power and parameters ---------------------------------------------------------------------

    def _power_up(self) -> None:
        """Power on, parse the ATR, agree on protocol and parameters."""
        self.atr, self.agreement = self.slot.activation().run(self._wanted)
        try:
            self.arm()
        except BaseException:
            with suppress(CcidError):
                self.slot.commands.power_off()
            raise

    def arm(self) -> None:
        """Make :meth:`transmit` go as card and reader agreed."""
        slot = self.slot
        exchange = choose(slot.commands, slot.descriptor, self.agreement, self._auto_get_response)
        self._transmit = exchange.transmit
        if slot.quirks.pseudo_apdus:
            self._transmit = answering(self._transmit, self._pseudo_answers())

    def _pseudo_answers(self) -> dict[bytes, bytes]:
        """What the driver answers itself, by command APDU."""
        bcdDevice = self.slot.reader.info.device.bcdDevice
        release = f"{bcdDevice >> 8:x}.{bcdDevice & 0xFF:02x}"
        return {
            apdu: text.replace("{bcdDevice}", release).encode() + SW_OK
            for apdu, text in self.slot.quirks.pseudo_apdus
        }
