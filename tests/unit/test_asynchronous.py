"""Interrupt transfers that stay armed, the thread for those who wait, and hot-plug."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.transport import asynchronous, hotplug, linux, usb
from ccid.transport.libusb import Status
from tests.unit.fake_events import FAILED, GONE, STALLED, FakeEvents
from tests.unit.fake_usb import FakeBackend, FakeDevice, use_backend
from tests.unit.test_descriptors import QEMU, SMART_CARD, configuration, interface

pytestmark = pytest.mark.usefixtures("any_context")

PRESENT, ABSENT = b"\x50\x03", b"\x50\x02"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEvents:
    made = FakeEvents()
    monkeypatch.setattr(asynchronous, "calls", made.calls)
    monkeypatch.setattr(asynchronous, "context", lambda: 1)
    return made


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, fake: FakeEvents, tmp_path: Path) -> FakeBackend:
    made = FakeBackend(FakeDevice(QEMU))
    node = tmp_path / "node"
    node.touch()
    use_backend(monkeypatch, made)
    monkeypatch.setattr(linux, "attribute", lambda *_: None)
    monkeypatch.setattr(linux, "node", lambda *_: node)
    return made


@pytest.fixture
def told() -> list[bytes]:
    return []


@pytest.fixture
def transport(backend: FakeBackend, told: list[bytes]) -> Iterator[Any]:
    info = ccid.list_readers()[0]
    made = info.connect(info)
    made.listen(told.append)
    yield made
    made.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def test_taken_without_a_thread(transport: Any, fake: FakeEvents, told: list[bytes]) -> None:
    transport.take_events()
    assert told == []
    fake.comes(PRESENT)
    transport.take_events()
    fake.comes(ABSENT)
    transport.take_events()
    assert told == [PRESENT, ABSENT]
    assert fake.is_armed
    assert fake.submitted == 3


def test_what_the_reader_has_still_to_say_is_waited_for(
    backend: FakeBackend,
    fake: FakeEvents,
    told: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One transfer waited while nobody looked; the next can be fetched only now."""
    monkeypatch.setattr(usb.UsbTransport, "_interval_s", lambda _: 0.2)
    info = ccid.list_readers()[0]
    made: Any = info.connect(info)
    made.listen(told.append)
    time.sleep(0.3)
    fake.comes(PRESENT)
    threading.Timer(0.05, fake.comes, [ABSENT]).start()
    made.take_events()
    assert told == [PRESENT, ABSENT]
    fake.comes(PRESENT)
    made.take_events()
    assert told == [PRESENT, ABSENT, PRESENT]
    made.close()


def test_waited_for(transport: Any, fake: FakeEvents, told: list[bytes]) -> None:
    threading.Timer(0.05, fake.comes, [PRESENT]).start()
    transport.take_events(10_000)
    assert told == [PRESENT]


def test_told_by_a_thread_while_somebody_attends(
    transport: Any, fake: FakeEvents, told: list[bytes]
) -> None:
    before = threading.active_count()
    end = transport.attend()
    also = transport.attend()
    assert threading.active_count() == before + 1
    fake.comes(PRESENT)
    until(lambda: told == [PRESENT])
    end()
    fake.comes(ABSENT)
    until(lambda: told == [PRESENT, ABSENT])
    also()
    assert threading.active_count() == before
    end()


def test_closing_ends_the_transfer_and_who_attends(
    backend: FakeBackend, transport: Any, fake: FakeEvents
) -> None:
    before = threading.active_count()
    transport.attend()
    transport.close()
    assert fake.freed == 1
    assert not fake.is_armed
    assert backend.calls[-1] == "close_device"
    assert threading.active_count() == before
    transport.take_events()


def test_closed_by_the_collector_while_another_begins_to_wait(transport: Any) -> None:
    def close() -> None:
        with transport._attendants._lock:
            transport.close()

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


def test_a_transfer_that_does_not_end_keeps_its_handle(
    backend: FakeBackend, transport: Any, fake: FakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libusb may call it back any time: neither it nor the handle may be freed."""
    monkeypatch.setattr(asynchronous, "END_S", 0.05)
    monkeypatch.setattr(asynchronous, "_lost", [])
    fake.can_cancel = False
    transport.close()
    assert fake.freed == 0
    assert "close_device" not in backend.calls
    assert len(asynchronous._lost) == 1


def test_a_halted_endpoint_is_cleared(
    backend: FakeBackend, transport: Any, fake: FakeEvents, told: list[bytes]
) -> None:
    fake.comes(status=STALLED)
    transport.take_events()
    assert backend.calls[-1] == "clear_halt 81"
    assert fake.is_armed
    fake.comes(PRESENT)
    transport.take_events()
    assert told == [PRESENT]


def test_a_failed_transfer_is_armed_again_after_a_pause(
    transport: Any, fake: FakeEvents, told: list[bytes]
) -> None:
    end = transport.attend()
    for _ in range(3):
        until(lambda: fake.is_armed)
        fake.comes(status=FAILED)
    until(lambda: fake.is_armed)
    fake.comes(PRESENT)
    until(lambda: told == [PRESENT])
    end()


def test_pulled_out_while_a_transfer_waits(transport: Any, fake: FakeEvents) -> None:
    dead: list[errors.CcidError] = []
    transport.when_dead(dead.append)
    end = transport.attend()
    fake.comes(status=GONE)
    until(lambda: dead)
    assert isinstance(dead[0], errors.ReaderRemoved)
    with pytest.raises(errors.ReaderRemoved):
        transport.send(1, 100)
    end()


def test_pulled_out_and_all_that_is_seen_is_an_error(
    transport: Any, fake: FakeEvents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(usb, "LINUX", True)
    end = transport.attend()
    fake.submit_status = Status.IO
    fake.comes(status=FAILED)
    (tmp_path / "node").unlink()
    until(lambda: transport.dead)
    assert isinstance(transport.dead, errors.ReaderRemoved)
    end()


def test_pulled_out_before_it_is_armed_again(transport: Any, fake: FakeEvents) -> None:
    fake.submit_status = Status.NO_DEVICE
    fake.comes(PRESENT)
    transport.take_events()
    assert isinstance(transport.dead, errors.ReaderRemoved)


def test_pulled_out_while_another_thread_looks_what_came(
    backend: FakeBackend, fake: FakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the notification, and has looked by the time the transfer cannot be armed again."""
    submits = fake._submit

    def submit(address: int) -> int:
        if fake.submitted:
            made._attendants.take()
            return Status.NO_DEVICE
        return submits(address)

    monkeypatch.setattr(fake, "_submit", submit)
    info = ccid.list_readers()[0]
    made: Any = info.connect(info)
    made.listen(lambda _: None)
    fake.comes(PRESENT)
    asynchronous.EventHandler().handle(0)
    assert made._attendants.came
    made.close()


def test_a_fork_waits_for_no_thread_of_its_parent(transport: Any) -> None:
    """One may have been about to tell of something."""
    holds, done, left = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with transport._events:
            holds.set()
            done.wait(10)

    def attend() -> None:
        transport.attend()()
        left.set()

    threading.Thread(target=hold).start()
    assert holds.wait(10)
    transport._forked()
    threading.Thread(target=attend).start()
    try:
        assert left.wait(5)
    finally:
        done.set()


def test_no_endpoint_no_events(backend: FakeBackend, fake: FakeEvents, told: list[bytes]) -> None:
    out, back = bytes.fromhex("07050102400000"), bytes.fromhex("07058202400000")
    data = configuration(interface(endpoints=2), SMART_CARD, out, back)
    backend.devices = (FakeDevice(data),)
    info = ccid.list_readers()[0]
    made: Any = info.connect(info)
    before = threading.active_count()
    made.listen(told.append)
    made.take_events(10_000)
    end = made.attend()
    assert threading.active_count() == before
    end()
    assert fake.submitted == 0
    made.close()


def test_one_who_fails_does_not_end_the_others(
    fake: FakeEvents, caplog: pytest.LogCaptureFixture
) -> None:
    called = threading.Event()

    def fails() -> bool:
        raise ValueError("a fault")

    def works() -> bool:
        called.set()
        return False

    ends = [asynchronous.attendants.add(take) for take in (fails, works)]
    assert called.wait(10)
    for end in ends:
        end()
    assert "a fault" in caplog.text


@pytest.fixture
def outside(fake: FakeEvents) -> Iterator[Callable[[], None]]:
    """The thread is kept outside of libusb, its look around done, until this is called."""
    reached, released = threading.Event(), threading.Event()

    def keep() -> bool:
        if threading.current_thread().name == "ccid events":
            reached.set()
            released.wait(10)
        return False

    end = asynchronous.attendants.add(keep)
    assert reached.wait(10)
    yield released.set
    end()


def test_who_comes_while_another_thread_handles_events_is_heard(
    outside: Callable[[], None],
) -> None:
    """It takes the interruption that was for the thread, which goes to libusb only then."""
    called = threading.Event()

    def take() -> bool:
        called.set()
        return False

    end = asynchronous.attendants.add(take)
    asynchronous.EventHandler().handle(0)
    outside()
    assert called.wait(10)
    end()


def test_trouble_that_another_thread_saw_is_looked_after(fake: FakeEvents) -> None:
    """The thread had looked just before, and goes to libusb now."""
    reached, released, mended = threading.Event(), threading.Event(), threading.Event()
    is_troubled = False

    def take() -> bool:
        if threading.current_thread().name == "ccid events" and is_troubled:
            mended.set()
        return is_troubled and not mended.is_set()

    def keep() -> bool:
        if threading.current_thread().name == "ccid events":
            reached.set()
            released.wait(10)
        return False

    ends = [asynchronous.attendants.add(one) for one in (take, keep)]
    assert reached.wait(10)
    is_troubled = True
    assert asynchronous.attendants.take()
    asynchronous.EventHandler().handle(0)
    released.set()
    assert mended.wait(10)
    for end in ends:
        end()


def test_no_wait_for_a_time_that_is_over(fake: FakeEvents) -> None:
    began = time.monotonic()
    asynchronous.EventHandler().handle(-0.001)
    assert time.monotonic() - began < 0.5


def test_an_attendant_may_leave_from_the_thread_itself(fake: FakeEvents) -> None:
    before, left = threading.active_count(), threading.Event()

    def take() -> bool:
        entered.wait(10)
        end()
        left.set()
        return False

    entered = threading.Event()
    end = asynchronous.attendants.add(take)
    entered.set()
    assert left.wait(10)
    until(lambda: threading.active_count() == before)


# Hot-plug -------------------------------------------------------------------------------------


def test_hotplug(fake: FakeEvents) -> None:
    before, told = threading.active_count(), threading.Event()
    end = hotplug.on_hotplug(told.set)
    assert end is not None
    assert fake.hears_hotplug
    fake.plug()
    assert told.wait(10)
    end()
    assert not fake.hears_hotplug
    assert threading.active_count() == before


def test_who_leaves_frees_nothing_that_libusb_is_about_to_call(fake: FakeEvents) -> None:
    """It makes sure of no more than that it does not begin to."""
    told = [threading.Event(), threading.Event()]
    ends = [hotplug.on_hotplug(one.set) for one in told]
    about = fake._hotplug
    for end in ends:
        assert end is not None
        end()
    assert len(set(fake.callbacks)) == 1, "it is one, which stays"
    assert about is not None
    assert about(None, None, 1, None) == 0
    asynchronous.attendants.take()
    assert not any(one.is_set() for one in told)


def test_a_libusb_that_does_not_tell(fake: FakeEvents) -> None:
    fake.can_hotplug = False
    assert hotplug.on_hotplug(threading.Event().set) is None
