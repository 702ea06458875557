"""libusb: loaded once, called in two ways.

pyusb finds and loads the library and serves discovery, descriptors, claims and control
transfers, through its backend interface: its :class:`usb.core.Device` opens devices unasked.
The calls of every APDU go to the same loaded library by ctypes, with transfers and buffers that are
made once (:mod:`ccid.transport.bulk`): pyusb's own read and write cost three times as much Python.
What pyusb does not have is in :mod:`ccid.transport.asynchronous`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from ccid.errors import UsbUnavailable
from ccid.ground import at_exit
from ccid.ground.once import Once
from ccid.ground.signal_safe_locks import new_rlock

LINUX = sys.platform.startswith("linux")
SONAME = "libusb-1.0.so.0"
"""libusb 1.0 on Linux."""

OLDEST = "1.0.21"
"""The libusb that has every function that each reader needs."""
NO_DEVICE_DISCOVERY = 2
"""libusb_option of libusb 1.0.24: begin without a look for devices."""

logger = logging.getLogger("ccid.transport")


class Status(IntEnum):
    """Return codes of libusb."""

    SUCCESS = 0
    IO = -1
    INVALID_PARAM = -2
    ACCESS = -3
    NO_DEVICE = -4
    NOT_FOUND = -5
    BUSY = -6
    TIMEOUT = -7
    OVERFLOW = -8
    PIPE = -9
    INTERRUPTED = -10
    NO_MEM = -11
    NOT_SUPPORTED = -12
    OTHER = -99


STATUS_TEXT = {
    Status.IO: "input/output error",
    Status.INVALID_PARAM: "invalid parameter",
    Status.ACCESS: "access denied",
    Status.NO_DEVICE: "no such device",
    Status.NOT_FOUND: "not found",
    Status.BUSY: "busy",
    Status.TIMEOUT: "timed out",
    Status.OVERFLOW: "the device sent more than was asked for",
    Status.PIPE: "stalled",
    Status.INTERRUPTED: "interrupted",
    Status.NO_MEM: "out of memory",
    Status.NOT_SUPPORTED: "not supported on this system",
    Status.OTHER: "unspecified error",
}

SPEEDS = {1: "low", 2: "full", 3: "high", 4: "super", 5: "super+"}


def status_text(status: int) -> str:
    """A return code in words."""
    try:
        return STATUS_TEXT[Status(status)]
    except (KeyError, ValueError):
        return f"libusb error {status}"


def usb_error() -> type[Exception]:
    """What pyusb raises."""
    import usb.core

    error: type[Exception] = usb.core.USBError
    return error


def usb_errors() -> tuple[type[Exception], ...]:
    """What pyusb raises for a call that failed, and for one that the system does not have."""
    return (usb_error(), NotImplementedError)


def status_of(error: Exception) -> int:
    """libusb's return code behind an error of pyusb; "unspecified" for any other error."""
    if isinstance(error, UsbUnavailable):
        raise error
    if isinstance(error, NotImplementedError):
        return Status.NOT_SUPPORTED
    code = getattr(error, "backend_error_code", None)
    if not isinstance(error, usb_error()) or not isinstance(code, int):
        logger.warning("libusb: %s: %s", type(error).__name__, error)
        return Status.OTHER
    return code


# The library ----------------------------------------------------------------------------------


class _State:
    """The state of the libusb context of this process, and of the further ones.

    Attributes:
        is_over: Python ends: the context has ended, or may any time.
        is_parents: This process is a fork, and the context is its parent's.
        is_fork: This process is a fork of one that had loaded libusb.
    """

    is_over = is_parents = is_fork = False


def backend() -> Any:
    """pyusb's backend on the system's libusb, or on libusb-package's where there is none.

    Raises:
        UsbUnavailable: Neither can be loaded; or Python ends, and has ended libusb.
    """
    if _State.is_over:
        raise UsbUnavailable("Python ends, and libusb has ended: no reader can be reached")
    if _State.is_parents:
        _renewed()
    return _loaded()


def another_context() -> Any:
    """pyusb's backend with a further context, on the library of :func:`backend`. It lasts as long
    as that one.

    Raises:
        UsbUnavailable: As :func:`backend`; or libusb does not begin.
    """
    shared = backend()
    try:
        made = type(shared)(shared.lib)
    except usb_errors() as error:
        raise UsbUnavailable(f"libusb does not begin once more: {error}") from None
    _leave_alone(made)  # _end() ends it: pyusb would do so too early
    if not made.ctx:
        raise UsbUnavailable("this pyusb ends each context of libusb by itself")
    _further.append(made)
    return made


_further: list[Any] = []
"""What :func:`another_context` made in this process."""


@Once
def _loaded() -> Any:
    found = _load()
    # Finalizers are called in the opposite order of their making: this one right before pyusb's,
    # which ends the context.
    weakref.finalize(found, _end, weakref.ref(found))
    return found


def _load() -> Any:
    import usb.backend.libusb1

    found = usb.backend.libusb1.get_backend(find_library=_find if LINUX else None)
    if found is not None:
        return found
    try:
        import libusb_package
    except ImportError:  # distributions do without it: there the system's libusb is a dependency
        raise UsbUnavailable(
            "libusb 1.0 cannot be loaded: the system has none (Debian: apt install "
            "libusb-1.0-0), and the package libusb-package is not installed (pip install "
            "libusb-package)"
        ) from None
    found = usb.backend.libusb1.get_backend(find_library=libusb_package.find_library)
    if found is None:
        raise UsbUnavailable(
            "libusb 1.0 cannot be loaded, neither the system's nor that of the package "
            "libusb-package: reinstall the latter with pip, or see whether USB is there at all"
        )
    return found


def backend_without_devices() -> Any:
    """As :func:`backend`, even where this process may not look for devices, as on Android: libusb
    begins without, and no reader is ever listed.

    Raises:
        UsbUnavailable: As :func:`backend`.
    """
    try:
        return backend()
    except UsbUnavailable:
        if _State.is_over or not _set_no_discovery():
            raise
    return backend()


def _set_no_discovery() -> bool:
    """Have the next context of libusb begin without a look for devices. False where that cannot
    be."""
    import usb.backend.libusb1

    lib = usb.backend.libusb1._lib
    if lib is None or not hasattr(lib, "libusb_set_option"):
        return False
    lib.libusb_set_option.argtypes, lib.libusb_set_option.restype = None, ctypes.c_int
    status: int = lib.libusb_set_option(None, ctypes.c_int(NO_DEVICE_DISCOVERY))
    return status == Status.SUCCESS


def _find(candidate: str) -> str | None:
    """The name of a shared library, as ``ctypes.util.find_library``. The loader is asked first for
    the one name that libusb 1.0 has on Linux: ``find_library`` runs ``ldconfig``, and where that
    is missing a compiler, which takes milliseconds."""
    try:
        ctypes.CDLL(SONAME)
    except OSError:
        return ctypes.util.find_library(candidate)
    return SONAME


def library_name() -> str:
    """Which libusb is loaded."""
    return str(backend().lib._name)


def callback_type(result: Any, *arguments: Any) -> Any:
    """The type of a function that libusb calls, or is called by."""
    make = "WINFUNCTYPE" if sys.platform == "win32" else "CFUNCTYPE"
    return getattr(ctypes, make)(result, *arguments)


def function(name: str, result: Any, *arguments: Any, since: str = OLDEST) -> Callable[..., Any]:
    """A function of libusb. Our own prototype: pyusb has declared some for itself.

    Args:
        name: The function.
        result, arguments: Its types.
        since: The version of libusb that has it.

    Raises:
        UsbUnavailable: This libusb does not have it.
    """
    try:
        found: Callable[..., Any] = callback_type(result, *arguments)((name, backend().lib))
    except AttributeError:
        raise UsbUnavailable(
            f"{library_name()} is too old: it lacks {name}; {since} or newer is needed"
        ) from None
    return found


def at(address: int) -> Any:
    """A pointer as :func:`plain` functions take it, made once."""
    return ctypes.byref(ctypes.c_char.from_address(address))


def plain(name: str, *arguments: Any) -> Callable[..., int]:
    """A function of libusb that returns an int and is called often: nothing is converted.

    Pointers are given as :func:`at` or ``ctypes.byref`` make them, and numbers are C ints. On
    32-bit Windows the called function removes its arguments from the stack, so there the types are
    declared as for :func:`function`.

    Args:
        name: The function.
        arguments: The types of its arguments.
    """
    is_declared = sys.platform == "win32" and ctypes.sizeof(ctypes.c_void_p) == 4
    return function(name, ctypes.c_int, *(arguments if is_declared else ()))


def keeping_gil(name: str, *arguments: Any) -> Callable[..., int]:
    """As :func:`plain`; but Python's lock, the GIL, is not left to other threads meanwhile, except
    on Windows, whose calling convention has no such kind.

    Args:
        name: The function. It must not wait for a thread that may need the GIL.
        arguments: The types of its arguments.
    """
    if sys.platform == "win32":
        return plain(name, *arguments)
    found: Callable[..., int] = ctypes.PYFUNCTYPE(ctypes.c_int)((name, backend().lib))
    return found


class Buffer:
    """Memory that libusb reads or writes, made once.

    Attributes:
        view: The bytes.
        address: Address of the first byte.
    """

    def __init__(self, size: int) -> None:
        self._memory = (ctypes.c_ubyte * size)()
        self.view = memoryview(self._memory).cast("B")
        self.address = ctypes.addressof(self._memory)


# Its end, and forks ---------------------------------------------------------------------------


def _end(reference: weakref.ref[Any]) -> None:
    """Python ends, and pyusb is about to end the context."""
    found = reference()
    if found is None:
        return  # a second one, which was never used
    at_exit.run()
    _State.is_over = True
    if threading.active_count() > 1:
        # A thread may be in libusb still: then all contexts have to last as long as the process.
        found.ctx = ctypes.c_void_p()
        return
    while _further:
        found.lib.libusb_exit(_further.pop().ctx)


def _leave_alone(found: Any) -> None:
    """Have pyusb not end this context."""
    pyusbs = getattr(found, "_finalizer", None)
    if pyusbs is not None:
        pyusbs.detach()
    else:
        found.ctx = ctypes.c_void_p()


def _after_fork() -> None:
    """In a forked child the contexts are the parent's: copies, without the threads that libusb had.
    They are neither used nor ended here. The child gets its own when it first needs one."""
    _State.is_over = False
    _further.clear()
    if _loaded.is_made:
        _State.is_parents = _State.is_fork = True
        _leave_alone(_loaded())


def _renewed() -> None:
    """Have a context that is this process's own."""
    with _renewing:
        if _State.is_parents:
            found, context = _loaded(), ctypes.c_void_p()
            status = found.lib.libusb_init(ctypes.byref(context))
            if status != Status.SUCCESS:
                raise UsbUnavailable(f"libusb cannot begin in this fork: {status_text(status)}")
            found.ctx = context
            _State.is_parents = False


def is_over() -> bool:
    """Python ends: the memory of libusb is freed, or may be at any time."""
    return _State.is_over


def is_fork() -> bool:
    """This process is a fork of one that had loaded libusb: libusb's thread for hot-plug events is
    not there."""
    return _State.is_fork


_renewing = new_rlock()


def _renew_lock() -> None:
    global _renewing
    _renewing = new_rlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
    os.register_at_fork(after_in_child=_after_fork)
