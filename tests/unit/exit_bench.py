"""Processes that end: each case is a fork of this program that runs to its end as any program does.

libusb and its context are real; the devices are not. Each call of libusb after ``libusb_exit`` is
printed as a line ``AFTER …``: with a real device, libusb would use freed memory.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import libusb_package
import usb._objfinalizer
import usb.backend.libusb1

import ccid
import ccid.device.watching
from ccid.errors import CcidError
from ccid.transport import asynchronous, claim, libusb, linux
from ccid.transport import usb as usb_transport
from ccid.virtual.port import Unplugged
from tests.unit.fake_usb import FakeBackend, FakeDevice

IN_TIME_S = 20
say = os.write


def tell(text: str) -> None:
    """Print one line. Uses file descriptor 1, since Python's own streams may be gone."""
    say(1, f"{text}\n".encode())


class Stub(FakeBackend, usb._objfinalizer.AutoFinalizedObject):  # type: ignore[misc]
    """pyusb's backend, with a real context of libusb, and a device that is a virtual reader."""

    def __new__(cls, *_: object) -> Stub:
        made: Stub = usb._objfinalizer.AutoFinalizedObject.__new__(cls)
        return made

    def __init__(self, _lib: object = None) -> None:
        self.virtual = ccid.VirtualReader(interrupt=False)
        super().__init__(FakeDevice(self.virtual.info.raw_configuration))
        if made:  # a further context lists the same
            self.devices = made[0].devices
        self.lib = ctypes.CDLL(libusb_package.find_library("usb-1.0"))
        self.ctx = ctypes.c_void_p()
        assert self.lib.libusb_init(ctypes.byref(self.ctx)) == 0
        self.ended = False
        self.waiting: list[int] = []
        """Transfers that wait for a reply, by their addresses."""
        self.owner = os.getpid()

    def _do(self, name: str) -> None:
        whose = "" if os.getpid() == self.owner else "CHILD "
        if self.ended:
            tell(f"{whose}AFTER {name}")
        elif name in ("open_device", "close_device"):
            tell(f"{whose}{name}")

    def enumerate_devices(self) -> list[FakeDevice]:
        self._do("enumerate_devices")
        return super().enumerate_devices()

    def submit(self, pointer: Any) -> int:
        """libusb_submit_transfer for the bulk endpoints: a command is there at once."""
        self._do("bulk")
        address = ctypes.addressof(pointer._obj)
        transfer = asynchronous.Transfer.from_address(address)
        if transfer.endpoint & 0x80:
            self.waiting.append(address)
            return 0
        data = ctypes.string_at(transfer.buffer, transfer.length)
        if data[0] == 0x63:
            tell("power off")
        try:
            self.virtual.port.out(transfer.endpoint, data)
        except Unplugged:
            return libusb.Status.NO_DEVICE
        transfer.status, transfer.actual_length = 0, transfer.length
        return 0

    def cancel(self, address: int) -> int:
        """libusb_cancel_transfer."""
        self._do("cancel")
        self.waiting.remove(address)
        asynchronous.Transfer.from_address(address).status = 3
        return 0

    def handle_events(self, context: Any, wait: Any, completed: Any) -> int:
        """libusb_handle_events_timeout_completed: the real one where no reply is waited for."""
        if not self.waiting:
            return real().handle_events(context, wait, completed)
        self._do("bulk")
        transfer = asynchronous.Transfer.from_address(self.waiting[0])
        wait_s = wait._obj.tv_sec + wait._obj.tv_usec / 1e6
        try:
            data = self.virtual.port.receive(transfer.endpoint, transfer.length, wait_s)
        except TimeoutError:
            return 0
        ctypes.memmove(transfer.buffer, data, len(data))
        self.waiting.clear()
        transfer.status, transfer.actual_length = 0, len(data)
        return 0

    def _finalize_object(self) -> None:
        if self.ctx:
            tell("exit" if os.getpid() == self.owner else "CHILD exit")
            self.ended = True
            self.lib.libusb_exit(self.ctx)


made: list[Stub] = []


def get_backend(find_library: object = None) -> Stub:
    made.append(Stub())
    return made[0]


usb.backend.libusb1.get_backend = get_backend
real = asynchronous.calls


def stub_calls() -> asynchronous.Calls:
    """libusb's functions, with the stub's for bulk transfers."""
    functions, stub = real(), made[0]
    return functions._replace(
        submit=stub.submit,
        handle_events=stub.handle_events,
        cancel_transfer=stub.cancel,
        submit_keeping_gil=stub.submit,
    )


setattr(asynchronous, "calls", stub_calls)  # noqa: B010
setattr(linux, "attribute", lambda *_: None)  # noqa: B010
for module in (claim, usb_transport):  # this device has no node, and is there
    setattr(module, "has_no_node", lambda _info: False)  # noqa: B010
keep: list[Any] = []


def powered() -> ccid.Reader:
    reader = ccid.open_reader()
    reader.slots[0].connect()
    return reader


# The cases ------------------------------------------------------------------------------------


def closed() -> None:
    powered().close()


def two_readers() -> None:
    """Each has a context of its own, and each context ends."""
    stub = libusb.backend()
    stub.devices += (FakeDevice(stub.devices[0].configuration, ports=(2,), address=3),)
    ends = stub.lib.libusb_exit

    def end(context: object) -> None:
        tell("libusb_exit")
        ends(context)

    stub.lib.libusb_exit = end
    keep.extend(ccid.open_reader(info) for info in ccid.list_readers())
    assert len({reader.transport._context for reader in keep}) == 2


def in_a_global() -> None:
    keep.append(powered())


def in_a_cycle() -> None:
    gc.disable()
    reader: Any = powered()
    reader.me = reader


def an_exception() -> None:
    reader = powered()
    raise RuntimeError(f"of {reader.name}")


def a_thread_that_exits() -> None:
    def work() -> None:
        keep.append(powered())
        sys.exit()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def a_thread_that_outlasts_main() -> None:
    def work() -> None:
        time.sleep(0.1)
        keep.append(powered())

    threading.Thread(target=work).start()


def a_daemon_thread_that_exchanges() -> None:
    reader = powered()
    card, begun = reader.slots[0].card, threading.Event()

    def work() -> None:
        while True:
            try:
                assert card is not None
                card.transmit(bytes.fromhex("00A4000C023F00"))
            except CcidError:
                time.sleep(0.001)
            begun.set()

    threading.Thread(target=work, daemon=True).start()
    begun.wait()


def a_daemon_thread_that_watches() -> None:
    begun = threading.Event()

    def work() -> None:
        for _ in ccid.watch():
            begun.set()

    threading.Thread(target=work, daemon=True).start()
    begun.wait()


def a_watch_that_is_suspended() -> None:
    watch = ccid.watch()
    next(watch)
    keep.append(watch)


def a_forgotten_reader_within_a_lock() -> None:
    """The lock belongs to :mod:`threading`; starting a thread acquires it."""
    reader: Any = powered()
    reader.me = reader
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        del reader
        gc.collect()
    ccid.open_reader().close()


def exited_at_once() -> None:
    keep.append(powered())
    os._exit(0)


def a_fork_that_ends() -> None:
    keep.append(powered())
    child = os.fork()
    if child:
        tell(f"child {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
        card = keep[0].slots[0].card
        tell(card.transmit(bytes.fromhex("00A4000C023F00")).hex())


def a_fork_that_opens_its_own() -> None:
    keep.append(powered())
    keep[0].close()
    child = os.fork()
    if child:
        tell(f"child {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
    else:
        keep.append(powered())


def an_exit_handler_that_comes_last() -> None:
    tell(f"handler {attempt(lambda: keep[0].slots[0].status())}")
    tell(f"handler {attempt(ccid.list_readers)}")


def an_exit_handler_that_opens() -> None:
    keep.append(powered())


def attempt(do: Callable[[], object]) -> str:
    try:
        do()
    except CcidError as error:
        return type(error).__name__
    return "nothing raised"


CASES: dict[str, Callable[[], None]] = {
    case.__name__: case
    for case in (
        closed,
        two_readers,
        in_a_global,
        in_a_cycle,
        an_exception,
        a_thread_that_exits,
        a_thread_that_outlasts_main,
        a_daemon_thread_that_exchanges,
        a_daemon_thread_that_watches,
        a_watch_that_is_suspended,
        a_forgotten_reader_within_a_lock,
        exited_at_once,
        a_fork_that_ends,
        a_fork_that_opens_its_own,
    )
}


def run(name: str) -> None:
    """Run a case in a process that ends by itself."""
    import atexit

    signal.alarm(IN_TIME_S)
    if name == "last":  # before any finalizer of weakref is registered: pyusb's then comes later
        atexit.register(an_exit_handler_that_comes_last)
        in_a_global()
    elif name == "opens before pyusb ends":
        weakref.finalize(Stub, bool)  # as in a program that has used libusb before
        libusb.backend()  # pyusb's finalizer is called after this handler
        atexit.register(an_exit_handler_that_opens)
    elif name == "opens first":
        atexit.register(an_exit_handler_that_opens)
    elif name == "opens between":
        weakref.finalize(Stub, bool)
        atexit.register(an_exit_handler_that_opens)
        ccid.open_reader().close()
    else:
        CASES[name]()


NAMES = [*CASES, "last", "opens before pyusb ends", "opens first", "opens between"]


def collect(pid: int, output: int) -> dict[str, Any]:
    """The output of a case."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.lseek(output, 0, os.SEEK_SET)  # the file is shared with that process
    with open(output, encoding="utf-8") as file:
        lines = file.read().splitlines()
    return {"status": status, "lines": lines}


found: dict[str, dict[str, Any]] = {}
waiting: list[tuple[str, int, int]] = []
for name in NAMES:
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    pid = os.fork()
    if pid == 0:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        asynchronous.attendants.reset()
        break
    waiting.append((name, pid, descriptor))
else:
    name = ""
    found.update((name, collect(pid, output)) for name, pid, output in waiting)
    print(json.dumps(found))
if name:
    run(name)
