"""The CCID function of a virtual reader: messages in, messages out, pure.

The reader's side of USB CCID rev 1.1: one command at a time for each slot, bMaxCCIDBusySlots busy
slots at the same time; replies that repeat bSlot and bSeq; time extensions while a card computes;
notifications of inserted and removed cards. Faults change the replies last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from ccid.codec.descriptors import ClassControl, InterfaceDescriptor, SmartCardDescriptor
from ccid.codec.descriptors.standard import TransferType
from ccid.codec.messages import (
    COMMANDS,
    MESSAGE_HEADER,
    Command,
    PC_to_RDR_Abort,
    PC_to_RDR_Escape,
    PC_to_RDR_GetParameters,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccClock,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_Mechanical,
    PC_to_RDR_ResetParameters,
    PC_to_RDR_SetDataRateAndClockFrequency,
    PC_to_RDR_SetParameters,
    PC_to_RDR_T0APDU,
    RDR_to_PC_DataBlock,
    RDR_to_PC_DataRateAndClockFrequency,
    RDR_to_PC_Escape,
    RDR_to_PC_NotifySlotChange,
    RDR_to_PC_Parameters,
    RDR_to_PC_SlotStatus,
    Reply,
    parse_command,
)
from ccid.codec.messages.headers import XFR_BLOCK, xfr_block_header
from ccid.codes import (
    BLOCKWISE,
    ClassRequest,
    ClockCommand,
    ClockStatus,
    CommandStatus,
    ExchangeLevel,
    Features,
    IccStatus,
    InterfaceProtocol,
    Protocol,
    SlotError,
    VoltageSupport,
)
from ccid.errors import MalformedMessage
from ccid.iso7816.apdu import MAX_EXTENDED
from ccid.masking.exchange_watch import Framing
from ccid.session.negotiation import VOLTAGES
from ccid.virtual.cards.application import Answer
from ccid.virtual.cards.line import DEFAULT_CLOCK_HZ
from ccid.virtual.contact_wire import Refused
from ccid.virtual.exchange_levels import Block, Levels, addressed, waiting
from ccid.virtual.faults import Fault, Said
from ccid.virtual.journal import Journal
from ccid.virtual.parameters import ParameterKeeper
from ccid.virtual.reply_making import data_block, failed
from ccid.virtual.usb_device import EndpointPlan, InPipe, Stall
from ccid.virtual.virtual_slot import Card, LateReply, VirtualSlot

if TYPE_CHECKING:
    from ccid.virtual.gadgets import Gadgets

EXTENSION_S = 0.4
"""Seconds between time extensions while a card computes."""

LATE_LIMIT_S = 120.0
"""A command whose answer comes later than this fails with ICC_MUTE."""
EVENT_PACKET = 16
"""wMaxPacketSize of the interrupt endpoint."""

ABORT = PC_to_RDR_Abort.bMessageType
OFFSETS = {"dwLength": 1, "bSlot": 5, "bPowerSelect": 7, "bProtocolNum": 7, "wLevelParameter": 8}
"""bError of a command with a wrong field is the field's offset (USB CCID rev 1.1, 6.2.6)."""


class CcidFunction:
    """A virtual reader's interface.

    Args:
        descriptor: The class descriptor.
        cards: The cards in the slots, None for an empty slot; slots beyond ``cards`` are empty.
        interrupt: The interface has an interrupt-IN endpoint.
        bInterfaceClass, bInterfaceProtocol: Fields of the interface descriptor.
        packet_size: wMaxPacketSize of the bulk endpoints.
        misplaced: The class descriptor follows the last endpoint descriptor.
        data_rates: What GET_DATA_RATES returns, bit/s.
        clock_frequencies: What GET_CLOCK_FREQUENCIES returns, kHz.
        escape: Answers PC_to_RDR_Escape; None if the reader does not support the command.
        gadgets: Buzzer and LEDs, which answer PC_to_RDR_Escape without ``escape``, and
            pseudo-APDUs to a contactless card; None for none.
        unchangeable: Fields of the protocol data structures that the host cannot change.
        preferred: The protocol that the reader selects by itself, with dwFeatures bit 6.
        real_time: Characters on the contacts take time; otherwise only the card's work does.
        answers_removal: A command under way fails when its card is removed; otherwise the
            command never gets an answer.
        name: The reader's name in the log.
        secrets: Log PINs and keys.
    """

    interface_number = 0

    def __init__(
        self,
        descriptor: SmartCardDescriptor,
        cards: Sequence[Card | None] = (),
        *,
        interrupt: bool = True,
        bInterfaceClass: int = 0x0B,
        bInterfaceProtocol: int = InterfaceProtocol.CCID,
        packet_size: int = 64,
        misplaced: bool = False,
        data_rates: Sequence[int] = (),
        clock_frequencies: Sequence[int] = (),
        escape: Callable[[bytes], bytes] | None = None,
        gadgets: Gadgets | None = None,
        unchangeable: Collection[str] = (),
        preferred: Protocol = Protocol.T1,
        real_time: bool = False,
        answers_removal: bool = True,
        name: str = "virtual",
        secrets: bool = False,
    ) -> None:
        self.descriptor = descriptor
        self.bulk_in = InPipe(packet_size)
        self.interrupt_in = InPipe(EVENT_PACKET) if interrupt else None
        self.bInterfaceClass = bInterfaceClass
        self.bInterfaceProtocol = bInterfaceProtocol
        self.misplaced = misplaced
        self.data_rates = list(data_rates)
        self.clock_frequencies = list(clock_frequencies)
        self.gadgets = gadgets
        self.escape = gadgets.escape if escape is None and gadgets is not None else escape
        self.unchangeable = unchangeable
        self.preferred = preferred
        self.journal = Journal(name, secrets)
        clock_hz = 1000.0 * descriptor.dwDefaultClock or DEFAULT_CLOCK_HZ
        self.slots = [
            VirtualSlot(index, clock_hz, real_time) for index in range(descriptor.slot_count)
        ]
        if len(cards) > len(self.slots):
            raise ValueError(f"{len(cards)} cards, and {len(self.slots)} slots")
        for slot, card in zip(self.slots, cards, strict=False):
            self._lay(slot, card)
            slot.changed = False
            self._auto_activate(slot, 0.0)
        self.faults: list[Fault] = []
        self.extension_s: float | None = EXTENSION_S
        """Seconds between time extensions; None for no time extensions."""
        self.answers_removal = answers_removal
        self.notice_s = 0.0
        """Seconds from the insertion or removal of a card to the notification."""
        self.ignores_repeats = False
        """The reader ignores a command with the bSeq of the command before."""
        self.is_unplugged = False
        self.on_change: Callable[[], None] = lambda: None
        """Called when a waiting host should look for new messages."""
        self._partial = b""
        self._aborting: dict[int, int] = {}
        self._last_seq: int | None = None

    # What the device asks ---------------------------------------------------------------------

    def interface(self) -> tuple[InterfaceDescriptor, bytes, bytes]:
        """The interface descriptor, the bytes after it, and the bytes after the endpoints."""
        head = InterfaceDescriptor(
            bInterfaceClass=self.bInterfaceClass, bInterfaceProtocol=self.bInterfaceProtocol
        )
        raw = self.descriptor.build()
        return (head, b"", raw) if self.misplaced else (head, raw, b"")

    def endpoints(self) -> list[EndpointPlan]:
        """Bulk-OUT, bulk-IN, and interrupt-IN if the interface has one."""
        size = self.bulk_in.packet_size
        plans = [
            EndpointPlan(TransferType.BULK, False, size),
            EndpointPlan(TransferType.BULK, True, size),
        ]
        if self.interrupt_in is not None:
            plans.append(EndpointPlan(TransferType.INTERRUPT, True, EVENT_PACKET, 10))
        return plans

    def reset(self, now: float) -> None:
        """Bus reset or SET_CONFIGURATION: power all cards off and notify the host of them."""
        self._partial = b""
        self._aborting.clear()
        self._last_seq = None
        self.bulk_in.drop_all()
        if self.interrupt_in is not None:
            self.interrupt_in.drop_all()
        for slot in self.slots:
            slot.power_off()
            slot.changed = slot.card is not None
            self._auto_activate(slot, now)
        self._notify(now)
        self.on_change()

    def control(self, request: ClassControl, data: bytes, now: float) -> bytes:
        """A class-specific request (5.3)."""
        match request.bRequest:
            case ClassRequest.ABORT if request.wValue & 0xFF < len(self.slots):
                self._abort(request.wValue & 0xFF, request.wValue >> 8, now)
                return b""
            case ClassRequest.GET_CLOCK_FREQUENCIES if self.clock_frequencies:
                return b"".join(f.to_bytes(4, "little") for f in self.clock_frequencies)
            case ClassRequest.GET_DATA_RATES if self.data_rates:
                return b"".join(rate.to_bytes(4, "little") for rate in self.data_rates)
        raise Stall

    # Insertion and removal --------------------------------------------------------------------

    def put(self, index: int, card: Card | None, now: float) -> None:
        """Put ``card`` into a slot; None empties the slot."""
        slot = self.slots[index]
        under_way = slot.busy_until is not None and slot.busy_until > now
        self._lay(slot, card)
        if under_way:
            self._cut_off(slot, SlotError.ICC_MUTE, now, answered=self.answers_removal)
        self._auto_activate(slot, now)
        self._notify(now)
        self.on_change()

    def _lay(self, slot: VirtualSlot, card: Card | None) -> None:
        """Put a card into a slot, or on it."""
        slot.put(card)
        if self.gadgets is not None:
            from ccid.virtual.cards.picc import Picc  # few readers need it

            if isinstance(slot.card, Picc):
                slot.card.of_reader = self.gadgets.pseudo_apdu

    def unplug(self) -> None:
        """Unplug the reader."""
        self.is_unplugged = True
        self.on_change()

    def _auto_activate(self, slot: VirtualSlot, now: float) -> None:
        if slot.card is not None and self.descriptor.features & Features.AUTO_ACTIVATION:
            slot.power_on(now)
            self._keeper.begin(slot, now)

    @property
    def descriptor(self) -> SmartCardDescriptor:
        """The class descriptor. Setting it changes what the reader does, not the descriptor that
        the host has read."""
        return self._descriptor

    @descriptor.setter
    def descriptor(self, descriptor: SmartCardDescriptor) -> None:
        self._descriptor = descriptor
        self._levels = Levels(descriptor)

    @property
    def _keeper(self) -> ParameterKeeper:
        return ParameterKeeper(self.descriptor, self.data_rates, self.unchangeable, self.preferred)

    def _notify(self, now: float) -> None:
        """Send RDR_to_PC_NotifySlotChange if a slot changed."""
        if self.interrupt_in is not None and any(slot.changed for slot in self.slots):
            for slot in self._unread():
                slot.changed = True
            states = [(slot.card is not None, slot.changed) for slot in self.slots]
            message = RDR_to_PC_NotifySlotChange.of(states).build()
            self.interrupt_in.push(message, now + self.notice_s)
        for slot in self.slots:
            slot.changed = False

    def _unread(self) -> Iterator[VirtualSlot]:
        """Drop the notifications that the host has not fetched, and return the slots whose change
        they tell: the next notification tells these changes with the present states."""
        assert self.interrupt_in is not None
        for old in self.interrupt_in.drop_if(
            lambda m: m[0] == RDR_to_PC_NotifySlotChange.bMessageType
        ):
            for state in RDR_to_PC_NotifySlotChange.parse(old[1:]).slots(len(self.slots)):
                if state.changed:
                    yield self.slots[state.slot]

    # Commands ---------------------------------------------------------------------------------

    def bulk_out(self, data: bytes, now: float) -> None:
        """Take bytes on bulk-OUT. A host may cut a long message at the end of a packet, and may
        end a message of full packets with an empty packet."""
        message: bytes | None = data
        if self._partial or len(data) % self.bulk_in.packet_size == 0:
            message = self._whole(data)
        if message is None:
            return
        if len(message) < MESSAGE_HEADER:
            raise Stall
        apdu = self._levels.is_apdu
        self.journal.heard(message, Framing.APDU if apdu else self._framing(message[5]))
        if self.ignores_repeats and message[6] == self._last_seq:
            return
        self._last_seq = message[6]
        self.bulk_in.stop()
        said = self._handle(message, now)
        if self.faults:
            for fault in tuple(self.faults):
                said = fault.strike(self, message, said)
        for one in said:
            self._say(one.message, one.due)
        self.on_change()

    def _whole(self, data: bytes) -> bytes | None:
        """The whole message that ends with ``data``; None while the message is incomplete."""
        if not data and not self._partial:
            return None
        message = self._partial + data
        size = MESSAGE_HEADER
        if len(message) >= MESSAGE_HEADER:
            size += int.from_bytes(message[1:5], "little")
        more = len(message) < size and len(data) and len(data) % self.bulk_in.packet_size == 0
        if more and size <= MESSAGE_HEADER + MAX_EXTENDED + 64:
            self._partial = message
            return None
        self._partial = b""
        return message

    def _say(self, message: bytes, due: float) -> None:
        self.journal.said(message)
        self.bulk_in.push(message, due)

    def _framing(self, index: int) -> Framing:
        """The framing of the blocks for a slot, for the log."""
        level = self._levels.level
        if index >= len(self.slots) or level not in BLOCKWISE:
            return Framing.APDU
        if self.slots[index].protocol is Protocol.T1:
            return Framing.T1
        return Framing.T0 if level is ExchangeLevel.CHARACTER else Framing.APDU

    def _handle(self, message: bytes, now: float) -> list[Said]:
        """All messages with which the reader answers ``message``."""
        kind, index = message[0], message[5]
        try:
            if index >= len(self.slots):
                raise Refused(OFFSETS["bSlot"])
            slot = self.slots[index]
            if kind not in COMMANDS:
                raise Refused(SlotError.CMD_NOT_SUPPORTED)
            self._admit(slot, message, now)
            if kind == XFR_BLOCK:
                raw, due = self._transfer(slot, message, now)
            else:
                reply, due = self._carry_out(slot, parse_command(message), now)
                raw = reply.build()
            return self._said(message, raw, now, due)
        except Refused as refused:
            due = now if refused.at is None else refused.at
            return self._said(message, self._failed(message, refused.bError), now, due)
        except MalformedMessage as error:
            bError = OFFSETS.get(error.field, MESSAGE_HEADER)
            return [Said(self._failed(message, bError), now)]

    def _said(self, command: bytes, reply: bytes, now: float, due: float) -> list[Said]:
        """Time extensions until ``due``, then ``reply``."""
        last = Said(reply, due)
        if due <= now:
            return [last]
        index, bSeq = command[5], command[6]
        self.slots[index].busy_until = due
        if self.extension_s is None or due - now < self.extension_s:
            return [last]
        return [*waiting(index, bSeq, reply[0], now, due, self.extension_s), last]

    def _admit(self, slot: VirtualSlot, message: bytes, now: float) -> None:
        """Refuse a command while the slot is aborting or busy, or too many slots are busy."""
        is_abort = message[0] == ABORT
        if self._aborting and slot.index in self._aborting:
            if not is_abort or self._aborting[slot.index] != message[6]:
                raise Refused(SlotError.CMD_ABORTED)
            del self._aborting[slot.index]
        elif is_abort:
            raise Refused(SlotError.CMD_NOT_SUPPORTED)
        busy = 0
        for other in self.slots:
            if other.busy_until is not None and other.busy_until > now:
                busy += 1
                if other is slot or busy >= max(1, self.descriptor.bMaxCCIDBusySlots):
                    raise Refused(SlotError.CMD_SLOT_BUSY)

    def _failed(self, message: bytes, bError: int) -> bytes:
        """The "failed" reply to ``message``; RDR_to_PC_SlotStatus for an unknown command."""
        index = message[5]
        icc = self.slots[index].icc_status if index < len(self.slots) else IccStatus.ABSENT
        return failed(message, bError, icc)

    def _abort(self, index: int, bSeq: int, now: float) -> None:
        """The ABORT request (5.3.1): commands fail until PC_to_RDR_Abort comes."""
        slot = self.slots[index]
        if slot.busy_until is not None and slot.busy_until > now:
            self._cut_off(slot, SlotError.CMD_ABORTED, now, answered=True)
        slot.command.clear()
        slot.response = b""
        self._aborting[index] = bSeq
        self.on_change()

    def _cut_off(self, slot: VirtualSlot, bError: int, now: float, answered: bool) -> None:
        """End the command under way in ``slot`` and drop its remaining messages."""
        dropped = self.bulk_in.drop_if(lambda message: message[5:6] == bytes([slot.index]))
        slot.busy_until = None
        slot.late_reply = None
        if answered and dropped:
            bStatus = CommandStatus.FAILED << 6 | slot.icc_status
            last = dropped[-1]
            head = last[:1] + bytes(4) + last[5:7] + bytes((bStatus, bError, 0))
            self._say(head, now)

    # One method a command ---------------------------------------------------------------------

    def _transfer(self, slot: VirtualSlot, message: bytes, now: float) -> tuple[bytes, float]:
        """PC_to_RDR_XfrBlock: the reply, and when the reply is due. Every APDU takes this path, so
        ``struct`` packs the headers."""
        _, length, _, bSeq, bBWI, wLevelParameter = xfr_block_header.unpack_from(message)
        abData = message[MESSAGE_HEADER:]
        if length != len(abData):
            raise MalformedMessage("dwLength is wrong", field="dwLength")
        block = Block(bBWI, wLevelParameter, abData)
        later = LateReply(slot, message[:MESSAGE_HEADER], self._deliver)
        part = self._levels.transfer(slot, block, now, later)
        if part is None:
            slot.late_reply = later
            return self._failed(message, SlotError.ICC_MUTE), now + LATE_LIMIT_S
        chain, data, due = part
        return data_block(slot.index, bSeq, slot.icc_status, chain, data), due

    def _deliver(
        self, slot: VirtualSlot, command: bytes, answer: Answer | None, now: float
    ) -> None:
        """Send the reply to PC_to_RDR_XfrBlock now, in place of its time extensions."""
        if answer is None:
            self._cut_off(slot, SlotError.ICC_MUTE, now, answered=True)
        else:
            self.bulk_in.drop_if(lambda message: message[5:6] == bytes([slot.index]))
            slot.busy_until = None
            chain, data = self._levels.late_part(slot, answer)
            self._say(data_block(slot.index, command[6], slot.icc_status, chain, data), now)
        self.on_change()

    def _carry_out(self, slot: VirtualSlot, command: Command, now: float) -> tuple[Reply, float]:
        """The reply, and when the reply is due."""
        reply: Reply
        due = now
        match command:
            case PC_to_RDR_IccPowerOn():
                reply = self._power_on(slot, command, now)
                due = self._keeper.begin(slot, now)
            case PC_to_RDR_IccPowerOff():
                slot.power_off()
                reply = self._slot_status(slot)
            case PC_to_RDR_GetSlotStatus() | PC_to_RDR_Abort():
                reply = self._slot_status(slot)
            case PC_to_RDR_GetParameters():
                reply = self._parameters(slot)
            case PC_to_RDR_ResetParameters():
                slot.reset_parameters()
                reply = self._parameters(slot)
            case PC_to_RDR_SetParameters():
                due = self._keeper.set(slot, command, now)
                reply = self._parameters(slot)
            case PC_to_RDR_Escape() if self.escape is not None:
                reply = RDR_to_PC_Escape(abData=self.escape(command.abData))
            case PC_to_RDR_IccClock() if self.descriptor.features & Features.CLOCK_STOP:
                stop = command.bClockCommand == ClockCommand.STOP
                slot.clock = ClockStatus.STOPPED_LOW if stop else ClockStatus.RUNNING
                reply = self._slot_status(slot)
            case PC_to_RDR_T0APDU() if self._levels.is_apdu:
                reply = self._slot_status(slot)
            case PC_to_RDR_Mechanical() if self.descriptor.dwMechanical:
                reply = self._slot_status(slot)
            case PC_to_RDR_SetDataRateAndClockFrequency() if self.data_rates:
                reply = RDR_to_PC_DataRateAndClockFrequency(
                    dwClockFrequency=command.dwClockFrequency, dwDataRate=command.dwDataRate
                )
            case _:
                raise Refused(SlotError.CMD_NOT_SUPPORTED)
        return addressed(slot, command, reply), due

    def _slot_status(self, slot: VirtualSlot) -> RDR_to_PC_SlotStatus:
        return RDR_to_PC_SlotStatus(bClockStatus=slot.clock)

    def _power_on(
        self, slot: VirtualSlot, command: PC_to_RDR_IccPowerOn, now: float
    ) -> RDR_to_PC_DataBlock:
        select = command.bPowerSelect
        automatic = self.descriptor.features & (Features.AUTO_VOLTAGE | Features.AUTO_ACTIVATION)
        if not select <= 3 or (select == 0 and not automatic):
            raise Refused(OFFSETS["bPowerSelect"])
        voltage = next((bit for bit, code in VOLTAGES if code == select), VoltageSupport(0))
        known = self.descriptor.voltages  # a descriptor without voltages accepts all
        if select and known and not known & voltage:
            raise Refused(OFFSETS["bPowerSelect"])
        if slot.card is not None and select and not slot.card.voltages & voltage:
            slot.power_off()
            raise Refused(SlotError.ICC_MUTE)
        atr = slot.power_on(now)
        if not atr:
            raise Refused(SlotError.ICC_MUTE)
        return RDR_to_PC_DataBlock(abData=atr)

    def _parameters(self, slot: VirtualSlot) -> RDR_to_PC_Parameters:
        return RDR_to_PC_Parameters(
            bProtocolNum=slot.protocol,
            abProtocolDataStructure=slot.parameters[slot.protocol],
        )
