"""IFD handler 3.0: the functions that a PC/SC daemon calls, in Python.

The handler translates and decides nothing: a reader behaves the same through PC/SC and through
:class:`ccid.Reader`. No function here raises for what a reader or a card does: each returns a
response code, with the bytes that belong to the code.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ccid.codec.messages import MESSAGE_HEADER
from ccid.codec.messages.events import SlotChange
from ccid.codes import PowerSelect
from ccid.device.find import open_reader
from ccid.device.reader import Reader
from ccid.errors import (
    AccessDenied,
    CcidError,
    CommandFailed,
    MalformedMessage,
    ReaderClosed,
    ReaderNotFound,
    ReaderRemoved,
    UnsupportedByReader,
)
from ccid.ground.signal_safe_locks import new_lock
from ccid.iso7816.atr import MAX_ATR
from ccid.pcsc.ifd.channel import Channel
from ccid.pcsc.ifd.device_strings import DeviceName, find
from ccid.pcsc.ifd.ifd_codes import code_of
from ccid.pcsc.numbers.ifd_numbers import (
    MAX_READERS,
    MAX_RESPONSE,
    READER_SHIFT,
    SLOT_MASK,
    Action,
    Asker,
    Code,
    Tag,
)
from ccid.transport import ReaderInfo, nothing_to_end

USB_CHANNEL = 0x0020
"""dwMode of SCARD_ATTR_CHANNEL_ID for USB (PC/SC part 3, 3.1.3)."""
MIN_FEATURES = 36
"""Bytes that a caller of GET_FEATURE_REQUEST must have room for: six features."""
CANCEL_S = 0.1
"""Pause between two attempts to cancel the exchange that a closing waits for."""

Find = Callable[[DeviceName, Collection[str]], ReaderInfo]

SUCCESS = Code.SUCCESS
"""Each APDU needs it: a member of an enumeration is found slowly."""


@dataclass(slots=True)
class _Device:
    """An open reader with its channels.

    Attributes:
        reader: The reader.
        name: The device string that opened the reader.
        number: The reader number of its Luns.
        channels: The slot index of each Lun.
        leave: Ends the subscription to the reader's events.
        closing: Held while a channel, or the reader, is closed.
    """

    reader: Reader
    name: str
    number: int
    channels: dict[int, int] = field(default_factory=dict)
    leave: Callable[[], None] = nothing_to_end
    closing: threading.Lock = field(default_factory=new_lock)


class IFDHandler:
    """Drives any number of readers.

    Args:
        on_event: Called with a Lun when its slot may have changed or its reader is gone; from
            another thread.
        escape: Applications may send Escape commands.
        apdu_mode, old_firmware, first_voltage, no_retry_counter: As for
            :func:`ccid.open_reader`. A reader that does not have, or refuses, apdu_mode or
            no_retry_counter is opened without the option.
        find: Finds the reader that a device string means; its second argument is the paths of the
            readers that are open already.
    """

    def __init__(
        self,
        on_event: Callable[[int], None] = lambda lun: None,
        *,
        escape: bool = False,
        apdu_mode: bool = False,
        old_firmware: bool = False,
        first_voltage: PowerSelect | None = None,
        no_retry_counter: bool = False,
        find: Find = find,
    ) -> None:
        self._on_event = on_event
        self._escape = escape
        self._wishes = {"apdu_mode": apdu_mode, "no_retry_counter": no_retry_counter}
        self._how: dict[str, Any] = {"old_firmware": old_firmware, "first_voltage": first_voltage}
        self._find = find
        self._lock = new_lock()
        """Held while a channel is made or closed: the reader may take seconds for that."""
        self._guard = new_lock()
        """Guards :attr:`_devices` and :attr:`_is_ending`; nobody waits while he holds it."""
        self._devices: list[_Device] = []
        self._is_ending = False
        """:meth:`power_off_all` was called."""
        self._channels: dict[int, Channel] = {}
        self._device_of: dict[int, _Device] = {}
        self.last_error: CcidError | None = None
        """The error of the last function that failed, for a log."""

    def _failed(self, error: CcidError, code: Code | None = None) -> Code:
        self.last_error = error
        return code_of(error) if code is None else code

    # Opening and closing ----------------------------------------------------------------------

    def create_channel_by_name(self, lun: int, name: str) -> Code:
        """IFDHCreateChannelByName: open a reader. The same name again for the same reader number
        opens another slot of that reader: the slot in ``lun`` if it is free, else the first free
        slot.

        Args:
            lun: Reader number << 16 | slot.
            name: A device string, see :meth:`DeviceName.parse`.

        Returns:
            SUCCESS; NO_SUCH_DEVICE where there is no such reader; COMMUNICATION_ERROR for a reader
            that cannot be opened (the reader is closed again).
        """
        with self._lock:
            if lun in self._channels:
                return Code.COMMUNICATION_ERROR
            try:
                device = self._next_slot(lun, name) or self._open(lun, name)
            except ReaderNotFound as error:
                return self._failed(error, Code.NO_SUCH_DEVICE)
            except CcidError as error:
                return self._failed(error, Code.COMMUNICATION_ERROR)
            free = set(range(len(device.reader.slots))) - set(device.channels.values())
            own = lun & SLOT_MASK  # after a new start pcscd opens slots in any order
            index = own if own in free else min(free)
            device.channels[lun] = index
            self._device_of[lun] = device
            self._channels[lun] = Channel(device.reader.slots[index])
        return Code.SUCCESS

    def create_channel(self, lun: int, channel: int) -> Code:
        """IFDHCreateChannel: as :meth:`create_channel_by_name`, for the first reader found.
        ``channel`` is not used: it has no meaning for USB readers."""
        return self.create_channel_by_name(lun, "")

    def _next_slot(self, lun: int, name: str) -> _Device | None:
        for device in self._devices:
            is_same = device.name == name and device.number == lun >> READER_SHIFT
            if is_same and len(device.channels) < len(device.reader.slots):
                return device
        return None

    def _open(self, lun: int, name: str) -> _Device:
        taken = [device.reader.info.path for device in self._devices]
        info = self._find(DeviceName.parse(name), taken)
        device = _Device(self._opened(info), name, lun >> READER_SHIFT)
        with self._guard:
            is_late = self._is_ending
            if not is_late:
                self._devices.append(device)
        if is_late:
            device.reader.close()
            raise ReaderClosed(f"{info.name}: all readers are being closed", reader=info.name)
        device.leave = device.reader.listen(lambda slots: self._notified(device, slots))
        return device

    def _opened(self, info: ReaderInfo) -> Reader:
        """Open a reader with those options that its quirks allow; without them if they fail.

        The daemon sees by itself that a reader leaves USB, and takes one that comes back for
        another."""
        known = info.quirks()
        ways = {
            "apdu_mode": known.apdu_mode_escape,
            "no_retry_counter": known.retry_counter_escape,
        }
        wishes: dict[str, Any] = {
            name: True for name, way in ways.items() if self._wishes[name] and way
        }
        try:
            return open_reader(info, reopen=False, **self._how, **wishes)
        except (CommandFailed, UnsupportedByReader) as error:
            if not wishes:
                raise
            self.last_error = error
            return open_reader(info, reopen=False, **self._how)

    def close_channel(self, lun: int) -> Code:
        """IFDHCloseChannel: power the card off; close the reader with its last channel."""
        with self._lock:
            channel = self._channels.get(lun)
            if channel is None:
                return Code.COMMUNICATION_ERROR
            device = self._device_of[lun]
            with device.closing:  # the tables hold both until then: power_off_all() waits
                try:
                    channel.close()
                    if len(device.channels) == 1:
                        device.leave()
                        device.reader.close()
                finally:
                    self._remove(lun, device)
        return Code.SUCCESS

    def _remove(self, lun: int, device: _Device) -> None:
        """Remove a channel from the tables, and its reader with the last channel."""
        del self._channels[lun], self._device_of[lun], device.channels[lun]
        if not device.channels:
            with self._guard:
                self._devices.remove(device)

    def close(self) -> None:
        """Close all channels."""
        for lun in list(self._channels):
            self.close_channel(lun)

    def power_off_all(self) -> None:
        """Cancel running exchanges, power all cards off and close all readers, before the process
        ends. Channels that another thread closes are waited for. No card gets power afterwards:
        the requests that other threads still carry out fail."""
        with self._guard:
            self._is_ending = True
            devices = list(self._devices)
        threads = [threading.Thread(target=self._end, args=(d,), daemon=True) for d in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @staticmethod
    def _end(device: _Device) -> None:
        """Close a reader, even in the middle of exchanges and closings of other threads."""
        while not device.closing.acquire(timeout=CANCEL_S):
            for slot in device.reader.slots:  # it may wait for an exchange in another slot
                with suppress(CcidError):
                    slot.cancel()
        try:
            device.reader.close()
        finally:
            device.closing.release()

    # Events -----------------------------------------------------------------------------------

    def is_gone(self, lun: int) -> bool:
        """Whether the reader of ``lun`` was unplugged. ``on_event`` may call this."""
        channel = self._channels.get(lun)
        return channel is not None and isinstance(channel.reader.transport.dead, ReaderRemoved)

    def has_events(self, lun: int) -> bool:
        """Whether the reader of ``lun`` sends events, or needs none: the card of an ICCD device
        cannot be removed."""
        channel = self._channels[lun]
        if channel.slot.quirks.presence_by_power:
            return False  # such a reader sends no event either
        about = channel.reader.info.reader
        return about.interrupt_in is not None or about.is_iccd

    def channel(self, lun: int) -> Channel | None:
        """The slot of a Lun, for those who ask for more than a response code; None if there is
        none."""
        return self._channels.get(lun)

    def _notified(self, device: _Device, slots: list[SlotChange] | None) -> None:
        for lun, index in list(device.channels.items()):
            change = None if slots is None or index >= len(slots) else slots[index]
            if change is None or change.changed:
                self._on_event(lun)

    def patient_until(self) -> float:
        """The latest deadline (monotonic clock) of all awaited replies; 0 without any."""
        deadlines = [
            until
            for device in list(self._devices)
            for until in list(device.reader.pipe.deadlines.values())
        ]
        return max(deadlines, default=0.0)

    # Capabilities -----------------------------------------------------------------------------

    def get_capabilities(self, lun: int, tag: int, capacity: int) -> tuple[Code, bytes]:
        """IFDHGetCapabilities.

        Args:
            lun: Reader and slot.
            tag: One of :class:`Tag`.
            capacity: Bytes the caller has room for.

        Returns:
            The code and the value. The tags of the polling functions have an empty value: the
            caller fills in addresses of its own functions.
        """
        channel = self._channels.get(lun)
        if channel is None:
            return Code.COMMUNICATION_ERROR, b""
        info = channel.reader.info
        descriptor = info.descriptor
        match tag:
            case Tag.ATR | Tag.ATTR_ATR_STRING:
                return _fitting(channel.atr[:MAX_ATR], capacity)
            case Tag.ATTR_ICC_PRESENCE:
                present = channel.is_present() is Code.ICC_PRESENT
                return _fitting(bytes([2 * present]), capacity)
            case Tag.ATTR_ICC_INTERFACE_STATUS:
                present = channel.is_present() is Code.ICC_PRESENT
                return _fitting(bytes([present]), capacity)
            case Tag.SIMULTANEOUS_ACCESS:
                return _fitting(bytes([MAX_READERS]), capacity)
            case Tag.THREAD_SAFE:
                return _fitting(b"\x01", capacity)
            case Tag.SLOTS_NUMBER:
                return _fitting(bytes([descriptor.slot_count]), capacity)
            case Tag.SLOT_THREAD_SAFE:
                all_at_once = descriptor.slot_count == descriptor.bMaxCCIDBusySlots
                return _fitting(bytes([all_at_once]), capacity)
            case Tag.ATTR_VENDOR_IFD_VERSION:
                return _fitting(struct.pack("=I", info.device.bcdDevice << 16), capacity)
            case Tag.ATTR_MAXINPUT:
                room = descriptor.dwMaxCCIDMessageLength - MESSAGE_HEADER
                return _fitting(struct.pack("=I", max(0, room)), capacity)
            case Tag.ATTR_CHANNEL_ID:
                channel_id = USB_CHANNEL << 16 | info.bus << 8 | info.address
                return _fitting(struct.pack("=I", channel_id), capacity)
            case Tag.ATTR_VENDOR_NAME:
                return Code.SUCCESS, _text(info.manufacturer, capacity)
            case Tag.ATTR_VENDOR_IFD_SERIAL_NO:
                return Code.SUCCESS, _text(info.serial, capacity)
            case (
                Tag.POLLING_THREAD_WITH_TIMEOUT
                | Tag.STOP_POLLING_THREAD
                | Tag.POLLING_THREAD_KILLABLE
            ):
                return Code.SUCCESS, b""
            case Tag.DEVICE_REMOVED:
                return Code.SUCCESS, b"\x01" if capacity == 1 else b""
        return Code.ERROR_TAG, b""

    def set_capabilities(self, lun: int, tag: int, value: bytes) -> Code:
        """IFDHSetCapabilities: after DEVICE_REMOVED, no slot of the reader sends a command any
        more. No other tag can be set."""
        channel = self._channels.get(lun)
        if channel is None:
            return Code.COMMUNICATION_ERROR
        if tag != Tag.DEVICE_REMOVED:
            return Code.ERROR_TAG
        if len(value) == 1 and value != b"\0":
            gone = channel.reader.info
            for other in list(self._channels.values()):
                info = other.reader.info
                if (info.bus, info.address) == (gone.bus, gone.address):
                    other.device_removed = True
        return Code.SUCCESS

    # The card ---------------------------------------------------------------------------------

    def icc_presence(self, lun: int, asker: int | None = None) -> Code:
        """IFDHICCPresence: ICC_PRESENT, ICC_NOT_PRESENT or COMMUNICATION_ERROR.

        Args:
            lun: Reader and slot.
            asker: Which thread asks (:class:`Asker`). None: after a card was taken out, one answer
                is ICC_NOT_PRESENT. Otherwise ICC_NOT_PRESENT is the answer until the watcher has
                told all clients.
        """
        channel = self._channels.get(lun)
        if channel is None:
            return Code.COMMUNICATION_ERROR
        if asker == Asker.WATCHER_TOLD:
            channel.told()
        code, ask_again = channel.presence(hold=asker is not None)
        if ask_again or (asker == Asker.OTHER and code is Code.ICC_NOT_PRESENT):
            self._on_event(lun)
        return code

    def power_icc(self, lun: int, action: int, capacity: int = MAX_ATR) -> tuple[Code, bytes]:
        """IFDHPowerICC. POWER_UP resets a card that has power already.

        Args:
            lun: Reader and slot.
            action: One of :class:`Action`.
            capacity: Bytes the caller has room for.

        Returns:
            The code, and the ATR of the powered card. If the ATR does not fit, the code is
            ERROR_INSUFFICIENT_BUFFER, and the card still has power.
        """
        channel = self._channels.get(lun)
        if channel is None:
            return Code.COMMUNICATION_ERROR, b""
        try:
            match action:
                case Action.POWER_DOWN:
                    channel.power_down()
                    return Code.SUCCESS, b""
                case Action.POWER_UP | Action.RESET:
                    return _fitting(channel.power_up()[:MAX_ATR], capacity)
        except CcidError as error:
            code = self._failed(error)
            if action != Action.POWER_DOWN or code is not Code.NO_SUCH_DEVICE:
                code = Code.ERROR_POWER_ACTION
            return code, b""
        finally:
            if channel.owes_absence:
                self._on_event(lun)
        return Code.NOT_SUPPORTED, b""

    def set_protocol_parameters(
        self, lun: int, protocol: int, flags: int = 0, pts1: int = 0, pts2: int = 0, pts3: int = 0
    ) -> Code:
        """IFDHSetProtocolParameters: agree with the card that :meth:`power_icc` powered up.

        Args:
            lun: Reader and slot.
            protocol: 1 for T=0, 2 for T=1.
            flags: Which of the next three arguments count: PTS1, PTS2, PTS3.
            pts1: Fi and Di, coded as TA1. Without the flag: the fastest that card and reader allow.
            pts2, pts3: Reserved by ISO/IEC 7816-3. With one of their flags the answer is
                ERROR_PTS_FAILURE.
        """
        channel = self._channels.get(lun)
        if channel is None:
            return Code.COMMUNICATION_ERROR
        try:
            return channel.set_protocol(protocol, flags, pts1)
        except CcidError as error:
            return self._failed(error)

    def transmit_to_icc(
        self, lun: int, protocol: int, apdu: bytes, capacity: int = MAX_RESPONSE
    ) -> tuple[Code, bytes]:
        """IFDHTransmitToICC.

        Args:
            lun: Reader and slot.
            protocol: Protocol of the send header: 0 for T=0, 1 for T=1.
            apdu: The command APDU.
            capacity: Bytes the caller has room for.
        """
        channel = self._channels.get(lun)
        if channel is None:
            return Code.COMMUNICATION_ERROR, b""
        try:
            response = channel.transmit(protocol, apdu)
        except CcidError as error:
            response = self._failed(error)
        if isinstance(response, bytes):
            return _fitting(response, capacity)
        if response is Code.ICC_NOT_PRESENT:
            channel.missed()
        if channel.owes_absence:
            self._on_event(lun)
        return response, b""

    def control(self, lun: int, code: int, data: bytes, capacity: int) -> tuple[Code, bytes]:
        """IFDHControl (version 3).

        Args:
            lun: Reader and slot.
            code: One of :class:`ccid.device.control.ControlCode`.
            data: The input of the control code.
            capacity: Bytes the caller has room for.
        """
        channel = self._channels.get(lun)
        if channel is None:
            return Code.COMMUNICATION_ERROR, b""
        from ccid.device.control import ControlCode  # imported here: large, and rarely used

        features = (ControlCode.GET_FEATURE_REQUEST, ControlCode.WINDOWS_GET_FEATURE_REQUEST)
        if code in features and capacity < MIN_FEATURES:
            return Code.ERROR_INSUFFICIENT_BUFFER, b""
        known = code in tuple(ControlCode)
        try:
            answer = channel.control(code, data, self._escape)
        except UnsupportedByReader as error:
            code = Code.COMMUNICATION_ERROR if known else Code.ERROR_NOT_SUPPORTED
            return self._failed(error, Code(code)), b""
        except MalformedMessage as error:
            is_pin = code in (ControlCode.VERIFY_PIN_DIRECT, ControlCode.MODIFY_PIN_DIRECT)
            return self._failed(error, Code.NOT_SUPPORTED if is_pin else None), b""
        except (AccessDenied, CommandFailed) as error:
            return self._failed(error, Code.COMMUNICATION_ERROR), b""
        except CcidError as error:
            return self._failed(error), b""
        return _fitting(answer, capacity)


def _fitting(value: bytes, capacity: int) -> tuple[Code, bytes]:
    if len(value) > capacity:
        return Code.ERROR_INSUFFICIENT_BUFFER, b""
    return SUCCESS, value


def _text(text: str | None, capacity: int) -> bytes:
    """``text`` with a NUL, cut to ``capacity`` bytes; empty for None or no room."""
    if text is None or not capacity:
        return b""
    return text.encode("ascii", "replace")[: capacity - 1] + b"\0"
