"""The readers on this machine's USB, and opening one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ccid.codes import PowerSelect
from ccid.device.reader import Reader
from ccid.device.verdict import Level, judge
from ccid.errors import ReaderNotFound, ReaderUnsupported
from ccid.link.conversation import MAX_COMMAND_S
from ccid.transport import ReaderInfo

if TYPE_CHECKING:
    from ccid.virtual import VirtualReader


LONGEST_NAME = 100
"""Most characters of an unknown reader name that an error message repeats."""


def list_readers() -> list[ReaderInfo]:
    """The readers on this machine's USB. No device is opened, and none gets a request.

    Returns:
        One :class:`ReaderInfo` for each CCID interface.

    Raises:
        UsbUnavailable: libusb cannot be loaded, or cannot list the devices.
    """
    from ccid.transport.discovery import discover

    return discover().readers


def select(readers: list[ReaderInfo], wanted: str | None) -> ReaderInfo:
    """Choose one reader by its name, identifier or path.

    Args:
        readers: The readers to choose from.
        wanted: The name of the reader or a part of the name, its ``vvvv:pppp``, or its path. None
            for the first reader.

    Returns:
        The reader.

    Raises:
        ReaderNotFound: No reader, or more than one, fits ``wanted``.
    """
    if not readers:
        raise ReaderNotFound(
            "no CCID reader on USB (`ccid-probe doctor` looks for the reason; "
            "ccid.VirtualReader() is one without hardware)"
        )
    if wanted is None:
        return readers[0]
    word = wanted.lower()
    exact = [r for r in readers if word in (r.name.lower(), r.path.lower(), r.id)]
    near = exact or [r for r in readers if word in r.name.lower() or _is_at(r.path.lower(), word)]
    if len(near) == 1:
        return near[0]
    there = ", ".join(str(r) for r in near or readers)
    shown = repr(wanted if len(wanted) <= LONGEST_NAME else f"{wanted[:LONGEST_NAME]}…")
    if not near:
        raise ReaderNotFound(f"no reader is called {shown}; there are: {there}")
    raise ReaderNotFound(f"{shown} may be any of these: {there}")


def _is_at(path: str, place: str) -> bool:
    """True if the reader at ``path`` is at the port ``place`` or behind a hub at that port.

    Whole port numbers are compared: ``usb:1-10`` is not behind ``usb:1-1``.
    """
    return path.startswith(f"{place}:") or (place.count(":") > 1 and path.startswith(f"{place}."))


def open_reader(
    which: ReaderInfo | VirtualReader | str | None = None,
    *,
    max_command_s: float | None = MAX_COMMAND_S,
    old_firmware: bool = False,
    apdu_mode: bool = False,
    no_retry_counter: bool = False,
    first_voltage: PowerSelect | None = None,
    reopen: bool = True,
) -> Reader:
    """Open a reader.

    Args:
        which: One of :func:`list_readers`, a :class:`ccid.VirtualReader`, the name of a reader (or
            a part of the name), ``vvvv:pppp`` or path; None for the first reader.
        max_command_s: Most seconds that a command may take, with all time extensions that the
            reader requests; None, or infinity, for no limit.
        old_firmware: True to open the reader even if its firmware is known to be faulty.
        apdu_mode: True to switch the reader to short APDU level (quirk ``apdu-mode-escape``).
        no_retry_counter: True to keep the PIN pad from sending an empty VERIFY of its own (quirk
            ``retry-counter-escape``).
        first_voltage: The voltage that a power-up tries first, where the host chooses; None for
            5 V. A reader with automatic voltage selection goes on choosing by itself.
        reopen: True to open a reader again that leaves USB and comes back at the same port within
            2 s; False if that is to be the end of the reader. A reader that is reset, or loses its
            power in sleep, and stays on USB is opened again in any case. The card is reset then:
            its next command raises :class:`ccid.errors.CardReset`.

    Returns:
        The open reader.

    Raises:
        ReaderNotFound: No reader, or more than one, fits ``which``.
        UnsupportedByReader: ``apdu_mode`` or ``no_retry_counter`` is True, and the table of readers
            has no Escape for that.
        ReaderUnsupported: The reader cannot work, judged by its descriptors; the message gives the
            reasons.
        AccessDenied: This user may not open the device.
        ReaderBusy: Another process holds the reader.
        SlotBusy: The reader does not end a command of an earlier process.
        ReaderRemoved, TransportTimeout, TransportError: The reader is gone, or does not answer.
        ReaderTableError: The user's table of readers has an error.
        ValueError, TypeError: ``max_command_s`` is no positive number.
    """
    info: Any = which if which is not None and not isinstance(which, str) else None
    if info is None:
        info = select(list_readers(), which if isinstance(which, str) else None)
    elif not isinstance(info, ReaderInfo):
        info = getattr(which, "info", None)
        if not isinstance(info, ReaderInfo):
            raise ReaderNotFound(
                f"{type(which).__name__} is no reader; give one of list_readers(), a "
                f"VirtualReader, or a name"
            )
    verdict = judge(info, old_firmware=old_firmware)
    if verdict.level is Level.UNSUPPORTED:
        reasons = "; ".join(str(reason) for reason in verdict.reasons if reason.fatal)
        raise ReaderUnsupported(f"{info.name}: {reasons}", reader=info.name)
    return Reader(
        info,
        max_command_s=max_command_s,
        apdu_mode=apdu_mode,
        no_retry_counter=no_retry_counter,
        first_voltage=first_voltage,
        reopen=reopen,
    )


def open_fd(
    fd: int,
    *,
    interface: int | None = None,
    max_command_s: float | None = MAX_COMMAND_S,
    old_firmware: bool = False,
    apdu_mode: bool = False,
    no_retry_counter: bool = False,
    first_voltage: PowerSelect | None = None,
) -> Reader:
    """Open a reader whose USB device another process opened: Android's ``termux-usb``, or a broker
    that passes file descriptors. This process needs no rights of its own.

    Args:
        fd: The file descriptor of the device's node (``/dev/bus/usb/…``), open for reading and
            writing. The reader uses a duplicate; the descriptor stays the caller's.
        interface: bInterfaceNumber of the reader, on a device with several; None for the first.
        max_command_s, old_firmware, apdu_mode, no_retry_counter, first_voltage: As for
            :func:`open_reader`.

    Returns:
        The open reader. After a reset of the device it is open again, as one of
        :func:`open_reader`; a device that leaves USB is gone for good.

    Raises:
        ReaderNotFound: The device has no CCID interface of this number.
        TransportError: ``fd`` is no open descriptor of a USB device.
        UsbUnavailable: libusb cannot be loaded, or takes no descriptors: it is older than 1.0.23,
            or this is neither Linux nor Android.
        TypeError: ``fd`` is no number.
        CcidError: As :func:`open_reader`.
    """
    from ccid.transport import given_descriptor

    return open_reader(
        given_descriptor.select(fd, interface),
        max_command_s=max_command_s,
        old_firmware=old_firmware,
        apdu_mode=apdu_mode,
        no_retry_counter=no_retry_counter,
        first_voltage=first_voltage,
        reopen=False,
    )
