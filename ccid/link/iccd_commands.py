"""The commands of an ICCD device, the twin of :mod:`ccid.link.slot_commands`: USB ICCD rev 1.0.

Theory of operation. A USB token that is reader and card in one may do without bulk endpoints:
everything goes by class-specific requests on the control pipe, and commands have no numbers.
Version A (bInterfaceProtocol 1) is directed by a status byte: after each transfer the host asks for
it until the device is not busy. The byte tells whether data are expected or a status word is ready.
Version B (bInterfaceProtocol 2) puts a byte before each answer that tells what follows: data, a
part of a chain, a failure, or that the host is to ask again after some time.

Asking again is bounded by time, never by count, and heeds :meth:`ccid.Slot.cancel`. "Busy" here is
what a time extension is elsewhere: a card may compute for as long as a command may take. A question
about the slot is bounded by seconds, and a power-up as elsewhere. The devices have no ABORT: the
answer to a command that was given up is waited for and dropped before the next command goes out.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from ccid.codec.descriptors import ClassControl
from ccid.codec.descriptors.class_requests import REQUEST_IN, REQUEST_OUT
from ccid.codec.messages import Command
from ccid.codes import Chain, ClockStatus, IccdRequest, IccStatus, Level
from ccid.errors import (
    CardMute,
    CcidError,
    CommandCancelled,
    MalformedMessage,
    TransportError,
    UnsupportedByReader,
)
from ccid.iso7816.apdu import SW_LENGTH, Bytes, octets
from ccid.iso7816.atr import MAX_ATR
from ccid.iso7816.timing import ACTIVATION_S
from ccid.known.quirks import Quirks
from ccid.link.block_ways import BlockWay, PatienceS
from ccid.link.card_state import Session
from ccid.link.conversation import CONTROL_TIMEOUT_MS, Conversation, seconds
from ccid.link.locks import SLICE_MS
from ccid.link.reply_errors import reply_error
from ccid.link.slot_commands import DEFAULT_TIMEOUT_S, STATUS_S, R, SlotCommands, SlotStatus

MAX_CONTROL = 4096
"""Bytes of the longest control transfer that every system allows."""
UNIT_S = 0.01
"""Of wDelayTime, and how long to wait where a device does not say."""

BUSY, MUTE = 0x40, 0x80
DATA_EXPECTED, STATUS_READY = 0x10, 0x20
"""Bits of version A's status byte (USB ICCD rev 1.0, 6.4.2.5)."""
FAILED, POLLING = 0x40, 0x80
"""bResponseType of version B, beyond the values that chaining has (USB ICCD rev 1.0, 6.4.3.5)."""


class IccdCommands(SlotCommands):
    """The commands of an ICCD device's one slot.

    Args:
        conversation: With the device.
        room: Bytes of a block at most.
        quirks: What is known of the device.
    """

    def __init__(self, conversation: Conversation, room: int, quirks: Quirks | None = None) -> None:
        super().__init__(conversation, 0, quirks)
        self.room = min(max(room, MAX_ATR), MAX_CONTROL - 1)
        self._owes = False

    def abort(self) -> None:
        """There is no ABORT: the answer that is still due is waited for and dropped."""
        self.perform(lambda: self._drain() if self._owes else None, STATUS_S)

    def give_up(self) -> None:
        """Note that the device may owe an answer that no thread waits for."""
        self._owes = True

    @property
    def is_given_up(self) -> bool:
        return self._owes

    def was_reset(self) -> None:
        super().was_reset()
        self._owes = False

    @abstractmethod
    def _drain(self) -> None:
        """Wait for the answer that the device still owes, and drop it."""

    @abstractmethod
    def _exchanged(self, wLevelParameter: int, data: bytes) -> tuple[bytes, int]:
        """Send a block; returns the block that comes back, and its chain parameter."""

    def xfr_block(
        self,
        abData: Bytes,
        *,
        timeout_s: float,
        bBWI: int = 0,
        wLevelParameter: int = Level.WHOLE,
    ) -> tuple[bytes, int]:
        self._specific(bBWI, wLevelParameter)
        seconds(timeout_s, "timeout_s")
        abData = octets(abData)
        return self.perform(lambda: self._exchanged(wLevelParameter, abData))

    def _send_block(self, wValue: int, data: Bytes) -> None:
        """XFR_BLOCK, once the device owes no answer to an earlier one."""
        if self._owes:
            self._drain()
        self._owes = True
        self._out(IccdRequest.XFR_BLOCK, wValue, data)

    def cancel(self) -> bool:
        """End what another thread has under way here; False if it is nothing."""
        return self.conversation.cancel(self.slot)

    # Requests ---------------------------------------------------------------------------------

    def _out(self, request: IccdRequest, wValue: int = 0, data: Bytes = b"") -> None:
        if len(data) > MAX_CONTROL:
            raise UnsupportedByReader(
                f"{self.name}: {len(data)} bytes do not fit into one control transfer",
                reader=self.name,
            )
        with self.conversation.turn(self.slot):
            self.conversation.proceed(self.slot)
            self.conversation.count += 1
            setup = ClassControl(
                REQUEST_OUT, request, wValue, self.conversation.interface, len(data)
            )
            self.conversation.transport.control(setup, self._control_ms(), bytes(data))

    def _in(self, request: IccdRequest, wLength: int) -> bytes:
        with self.conversation.turn(self.slot):
            self.conversation.proceed(self.slot)
            setup = ClassControl(REQUEST_IN, request, 0, self.conversation.interface, wLength)
            return self.conversation.transport.control(setup, self._control_ms())

    def _control_ms(self) -> int:
        """How long a control transfer may take, in milliseconds."""
        latest = self.conversation.latest
        if latest is None:
            return CONTROL_TIMEOUT_MS
        return max(1, min(CONTROL_TIMEOUT_MS, int((latest - time.monotonic()) * 1000)))

    def _pause(self, seconds: float) -> None:
        """Wait before asking again; a cancellation ends the wait."""
        until = self.conversation.deadlines[self.slot] = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.conversation.proceed(self.slot)
            time.sleep(min(left, SLICE_MS / 1000))
        self.conversation.proceed(self.slot)

    def _mute(self) -> NoReturn:
        raise CardMute(
            f"{self.name}: the device says that its card does not answer",
            reader=self.name,
            slot=self.slot,
            bStatus=IccStatus.ACTIVE,
        )

    # Commands ---------------------------------------------------------------------------------

    def power_off(self) -> SlotStatus:
        """Deactivate the card."""
        self.conversation.cards.powered_off(self.slot)
        self.perform(lambda: self._out(IccdRequest.ICC_POWER_OFF), STATUS_S)
        self._owes = self._gave_power = False
        return SlotStatus(IccStatus.INACTIVE, ClockStatus.STOPPED_LOW)

    def apdu_way(
        self,
        patience_s: PatienceS,
        more: Callable[[bytes, int], bytes],
        session: Session | None = None,
    ) -> BlockWay:
        return IccdWay(self, patience_s, more, session)

    def _send(self, command: Command, reply: type[R], timeout_s: float = DEFAULT_TIMEOUT_S) -> R:
        """Reader and card are one device: it has no parameters to set, and no keypad."""
        what = type(command).__name__.removeprefix("PC_to_RDR_")
        raise UnsupportedByReader(
            f"{self.name}: an ICCD device has no {what}", reader=self.name, slot=self.slot
        )


class IccdWay(BlockWay):
    """The way of an APDU to an ICCD device.

    Args:
        commands: The device's commands.
        patience_s: How many seconds to wait for the reply to an APDU, before extensions.
        more: Called with abData and bChainParameter where that is not 0; returns the whole.
        session: The power-up that the APDUs are for; None for any.
    """

    def __init__(
        self,
        commands: IccdCommands,
        patience_s: PatienceS,
        more: Callable[[bytes, int], bytes],
        session: Session | None,
    ) -> None:
        self.commands = commands
        self.patience_s = patience_s
        self.more = more
        self.session = session

    def transmit(self, data: Bytes) -> bytes:
        commands, apdu = self.commands, octets(data)
        response = commands.perform(partial(self._whole, apdu), session=self.session)
        if len(response) < SW_LENGTH:
            raise reply_error(commands.name, commands.slot, len(response), 0, 0, 0)
        return response

    def _whole(self, apdu: bytes) -> bytes:
        data, chain = self.commands.xfr_block(apdu, timeout_s=self.patience_s(apdu))
        return self.more(data, chain) if chain else data


class IccdA(IccdCommands):
    """Version A: bInterfaceProtocol 1."""

    def status(self) -> int:
        """GET_ICC_STATUS, asked until the device is not busy (6.4.2.5).

        Raises:
            CardMute: It says so. MalformedMessage: It says nothing.
        """
        while True:
            came = self._in(IccdRequest.GET_ICC_STATUS, 1)
            if not came:
                raise MalformedMessage(
                    f"{self.name}: GET_ICC_STATUS brings no byte", field="bStatus"
                )
            if not came[0] & BUSY:
                return came[0]
            self._pause(UNIT_S)

    def power_on(self, bPowerSelect: int = 0) -> bytes:
        return self.perform(self._powered_on, ACTIVATION_S)

    def _powered_on(self) -> bytes:
        self.power_off()
        with self._rising():
            self.perform(self.status, STATUS_S)
            return self._in(IccdRequest.ICC_POWER_ON, MAX_ATR)

    def _current_status(self, at_least_s: float = 0.0) -> SlotStatus:
        mute = self.perform(self.status, max(STATUS_S, seconds(at_least_s, "at_least_s"))) == MUTE
        icc = IccStatus.ABSENT if mute else IccStatus.ACTIVE
        return SlotStatus(icc, ClockStatus.RUNNING)

    def send(self, data: Bytes) -> int:
        """XFR_BLOCK, then the status (6.4.2.3). Raises CardMute if that says so."""
        self._send_block(0, data)
        return self.ready()

    def send_more(self, data: Bytes) -> int:
        """The data that a header announced, then the status."""
        self._out(IccdRequest.XFR_BLOCK, 0, data)
        return self.ready()

    def receive(self, count: int) -> bytes:
        """DATA_BLOCK: up to ``count`` bytes (6.4.2.4)."""
        return self._in(IccdRequest.DATA_BLOCK, min(count, MAX_CONTROL))

    def done(self) -> None:
        """Note that a command has been answered to its end."""
        self._owes = False

    def ready(self) -> int:
        """The status, when the device is not busy. Raises CardMute if it says so."""
        status = self.status()
        if status == MUTE:
            self._owes = False
            self._mute()
        return status

    def _drain(self) -> None:
        status = self.status()
        if status & (DATA_EXPECTED | STATUS_READY):
            self.receive(MAX_CONTROL)
        self._owes = False

    def _exchanged(self, wLevelParameter: int, data: bytes) -> tuple[bytes, int]:
        self.send(data)
        came = self.receive(self.room)
        self.done()
        return came, Chain.WHOLE


class IccdB(IccdCommands):
    """Version B: bInterfaceProtocol 2."""

    def power_on(self, bPowerSelect: int = 0) -> bytes:
        return self.perform(self._powered_on, ACTIVATION_S)

    def _powered_on(self) -> bytes:
        self.power_off()
        with self._rising():
            self._out(IccdRequest.ICC_POWER_ON, 1)
            atr, chain = self._answer(1 + MAX_ATR)
            if chain:
                raise self._odd(chain)
            return atr

    def power_off(self) -> SlotStatus:
        return self.perform(self._powered_off, STATUS_S)

    def _powered_off(self) -> SlotStatus:
        super().power_off()
        return self.slot_status()

    def _current_status(self, at_least_s: float = 0.0) -> SlotStatus:
        came = self._in(IccdRequest.SLOT_STATUS, 3)
        if len(came) < 2:
            raise MalformedMessage(
                f"{self.name}: SLOT_STATUS brings {len(came)} bytes", field="bmICCStatus"
            )
        clock = ClockStatus(came[2] & 3) if len(came) > 2 else ClockStatus.RUNNING
        icc = IccStatus(came[1] & 3)
        return SlotStatus(IccStatus.ABSENT if icc is IccStatus.RFU else icc, clock)

    def _exchanged(self, wLevelParameter: int, data: bytes) -> tuple[bytes, int]:
        self._send_block(wLevelParameter << 8 & 0xFFFF, data)
        return self._answer(1 + self.room)

    def _drain(self) -> None:
        try:
            self._answer(1 + self.room)
        except (TransportError, CommandCancelled):
            if self._owes:  # it has not ended
                raise
        except CcidError:
            pass  # no command waits for this answer any more
        self._owes = False

    def _answer(self, wLength: int) -> tuple[bytes, int]:
        """DATA_BLOCK, asked until it brings something: data and chain parameter (6.4.3.5)."""
        while True:
            came = self._in(IccdRequest.DATA_BLOCK, wLength)
            if not came:
                raise MalformedMessage(
                    f"{self.name}: DATA_BLOCK brings no byte", field="bResponseType"
                )
            kind = came[0]
            if kind == POLLING:
                self._pause(int.from_bytes(came[1:3], "little") * UNIT_S or UNIT_S)
                continue
            self._owes = False
            if kind == FAILED:
                bStatus, bError = (*came[1:3], 0, 0)[:2]
                raise reply_error(self.name, self.slot, 0, 0, bStatus & 0x3F | FAILED, bError)
            if kind not in tuple(Chain):
                raise self._odd(kind)
            return came[1:], kind

    def _odd(self, bResponseType: int) -> MalformedMessage:
        return MalformedMessage(
            f"{self.name}: bResponseType 0x{bResponseType:02X} has no meaning here",
            field="bResponseType",
            reader=self.name,
            slot=self.slot,
        )
