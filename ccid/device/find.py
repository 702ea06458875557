"""Which readers are there, and opening one of them."""

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
"""An error repeats no more of a name that no reader has."""


def list_readers() -> list[ReaderInfo]:
    """The readers on this machine's USB. No device is opened or disturbed.

    Raises:
        UsbUnavailable: libusb cannot be loaded, or cannot look.
    """
    from ccid.transport.discovery import discover

    return discover().readers


def select(readers: list[ReaderInfo], wanted: str | None) -> ReaderInfo:
    """The reader that ``wanted`` names among ``readers``; the first for None.

    Args:
        readers: Those that are there.
        wanted: Its name or a part of it, its ``vvvv:pppp``, or its path.

    Raises:
        ReaderNotFound: None, or more than one.
    """
    if not readers:
        raise ReaderNotFound("no CCID reader on USB")
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
    """True if ``path`` begins with all of ``place``: ``usb:1-1`` is not where ``usb:1-10`` is,
    nor behind the hub there."""
    return path.startswith(f"{place}:") or (place.count(":") > 1 and path.startswith(f"{place}."))


def open_reader(
    which: ReaderInfo | VirtualReader | str | None = None,
    *,
    max_command_s: float | None = MAX_COMMAND_S,
    old_firmware: bool = False,
    apdu_mode: bool = False,
    no_retry_counter: bool = False,
    first_voltage: PowerSelect | None = None,
) -> Reader:
    """Open a reader.

    Args:
        which: One of :func:`list_readers`, a :class:`ccid.VirtualReader`, a name (or part of
            it), ``vvvv:pppp`` or path; None for the first there is.
        max_command_s: Most seconds a command may take with all the time extensions that the
            reader asks for; None for no limit.
        old_firmware: Open it even if its firmware is known to be faulty.
        apdu_mode: Have it switch to short APDU level (``apdu-mode-escape``).
        no_retry_counter: Keep its PIN pad from sending an empty VERIFY of its own
            (``retry-counter-escape``).
        first_voltage: What a card is tried with first, where the choice is the host's; None for
            5 V. A reader that chooses by itself goes on doing so.

    Raises:
        ReaderNotFound: There is no such reader.
        UnsupportedByReader: The table knows of no way to have this reader do what was asked for.
        ReaderUnsupported: By its descriptors it cannot work; the reasons are named.
        AccessDenied, ReaderBusy, ReaderRemoved, TransportTimeout: It cannot be opened now.
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
    )
