"""Events at a reader that pcscd drives with our driver; and resources stay constant in the long
run."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import pytest
from lab.guest import Guest
from lab.link import Job
from lab.pcscd import readers

from tests.conftest import Tell
from tests.vm.programs import CLIENT, helpers
from tests.vm.test_pcscd import bundle, client, daemon, driver, until  # noqa: F401
from tests.vm.test_qemu_reader import ECHO, usbmon  # noqa: F401
from tests.vm.test_usbip import plugged

NO_CARD, REMOVED = "0x8010000c", "0x80100069"
SEED = 20050422

PCSC = """
import threading
hresult, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
both = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
name = str(find(sys.argv[1]))
def connected():
    deadline = time.monotonic() + 30
    while True:
        hresult, card, protocol = scard.SCardConnect(
            context, name, scard.SCARD_SHARE_SHARED, both)
        if not hresult: return card
        assert time.monotonic() < deadline, hex(hresult & 0xffffffff)
        time.sleep(0.1)
def transmit_raw(card, apdu):
    hresult, answer = scard.SCardTransmit(card, scard.SCARD_PCI_T0, list(bytes.fromhex(apdu)))
    return hex(hresult & 0xffffffff), bytes(answer).hex()
"""


@ECHO
def test_a_card_taken_out_while_it_thinks(
    guest: Guest,
    driver: None,  # noqa: F811
    number: int,
    tell: Tell,
) -> None:
    """QEMU's reader does not answer the command, which would take a minute."""
    source = """
for turn in range(2):
    card = connected()
    print("thinks", flush=True)
    said = transmit_raw(card, "0038003C")[0]
    print("said", said, time.time(), flush=True)
    time.sleep(1)  # pcscd's other thread could not ask while the command was under way
    print("then", hex(scard.SCardBeginTransaction(card) & 0xffffffff), flush=True)
    print("again", transmit_raw(connected(), "0010000002")[1], flush=True)
"""
    said, took = [], []
    with daemon(guest, number):
        words = ["/usr/bin/python3", "-u", "-c", CLIENT + PCSC + source, f"lab{number}"]
        with guest.popen(words) as job:
            for turn in range(1, 3):
                job.wait_for(rf"(?s)(thinks.*?){{{turn}}}", 60)
                time.sleep(1)
                guest.readers[number].card_out()
                out = float(guest.run(["date", "+%s.%N"], check=True).stdout)
                lines = job.wait_for(rf"(?s)(said (\S+) (\S+)\n.*?){{{turn}}}", 50)
                said.append(lines[2])
                took.append(float(lines[3]) - out)
                guest.readers[number].card_in()
                job.wait_for(rf"(?s)(again \w+\n.*?){{{turn}}}", 60)
            assert job.stdout.count("again 00019000") == 2
            assert job.stdout.count(f"then {REMOVED}") == 2
    assert said == [NO_CARD] * 2, "SCardTransmit has no other word for it"
    tell(f"through pcscd: told {max(took):.2f} s after the card was taken out")


@ECHO
def test_an_idle_reader_moves_no_byte(
    guest: Guest,
    driver: None,  # noqa: F811
    usbmon: str,  # noqa: F811
    number: int,
    full: bool,
) -> None:
    """No transfer completes while pcscd waits for an event."""
    source = """
bus, address, seconds = sys.argv[1:]
monitor = Monitor(types.SimpleNamespace(bus=int(bus), address=int(address)))
time.sleep(float(seconds))
print(len(monitor.urbs()))
"""
    source = f"import os, sys, time, types\n{usbmon}{source}"
    serial = guest.readers[number].serial
    with daemon(guest, number):
        client(guest, 'connect(sys.argv[1]).disconnect(); print("{}")', f"lab{number}")
        time.sleep(7)  # pcscd powers an unused card off
        found = guest.run(
            f"d=$(dirname $(grep -lx {serial} /sys/bus/usb/devices/*/serial)); "
            "cat $d/busnum $d/devnum",
            check=True,
        ).stdout.split()
        seconds = 60 if full else 5
        command = ["/usr/bin/python3", "-c", source, *found, str(seconds)]
        assert guest.run(command, timeout=seconds + 60, check=True).stdout == "0\n"


def test_a_card_event_reaches_the_application(
    guest: Guest,
    driver: None,  # noqa: F811
    full: bool,
    tell: Tell,
) -> None:
    """By SCardGetStatusChange. The time since the notification is printed."""
    source = """
import socket
def hand(line):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sys.argv[2])
        s.sendall(line.encode() + b"\\n")
        s.recv(1000)
        return time.monotonic()
def wait(state, want):
    while True:
        hresult, changed = scard.SCardGetStatusChange(context, 30000, [(name, state)])
        assert hresult == 0, hex(hresult)
        state = changed[0][1]
        if state & want: return state, time.monotonic()
connected()
state, _ = wait(scard.SCARD_STATE_UNAWARE, scard.SCARD_STATE_PRESENT)
took = []
for _ in range(int(sys.argv[3])):
    for line, want in (
        ("card out", scard.SCARD_STATE_EMPTY), ("card in", scard.SCARD_STATE_PRESENT)
    ):
        time.sleep(0.3)
        said = []
        thread = threading.Thread(target=lambda: said.append(wait(state, want)))
        thread.start()
        time.sleep(0.1)
        moved = hand(line)
        thread.join()
        state, told = said[0]
        took.append(told - moved)
print(json.dumps(took))
"""
    with plugged(guest, "--card", "echo") as usb, daemon(guest, more=1):
        count = 50 if full else 5
        took = client(guest, PCSC + source, "USB/IP", usb.control, str(count), timeout=300)
    took.sort()
    tell(
        f"card event to application: median {took[len(took) // 2] * 1000:.1f} ms, "
        f"at most {took[-1] * 1000:.1f} ms"
    )


# In the long run ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Holdings:
    """Resources that a process holds."""

    rss_kib: int
    threads: int
    descriptors: int


def holdings(guest: Guest, pid: int) -> Holdings:
    said = guest.run(
        f"grep -E '^(VmRSS|Threads)' /proc/{pid}/status | tr -dc '0-9\\n'; "
        f"ls /proc/{pid}/fd | wc -l",
        check=True,
    ).stdout.split()
    return Holdings(*map(int, said))


def test_many_insertions(
    guest: Guest,
    driver: None,  # noqa: F811
    full: bool,
    tell: Tell,
) -> None:
    """Each card answers an APDU; neither pcscd nor the helper grows."""
    source = """
import random
card, chance = None, random.Random(int(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    if chance.random() < 0.5: time.sleep(chance.random() * 0.05)
    answer = ""
    while not answer:  # the notification of the card before may come yet
        card = connected()
        answer = transmit_raw(card, "0010000002")[1]
    print("done", answer, flush=True)
    ends = [scard.SCARD_LEAVE_CARD, scard.SCARD_UNPOWER_CARD, scard.SCARD_RESET_CARD]
    scard.SCardDisconnect(card, chance.choice(ends))
"""
    warm, count = (50, 1000) if full else (10, 30)
    reader, fifo = guest.readers[1], "/run/insertions"
    with daemon(guest, 1) as running:
        guest.run(f"rm -f {fifo}; mkfifo {fifo}", check=True)
        shell = f'exec /usr/bin/python3 -u -c "$@" <>{fifo}'
        words = ["sh", "-c", shell, "sh", CLIENT + PCSC + source, "lab1", str(SEED)]
        with guest.popen(words) as job:
            job.wait_for("ready", 60)
            (helper,) = helpers(guest)
            before: list[Holdings] = []
            for n in range(1, warm + count + 1):
                reader.card_out()
                reader.card_in()
                guest.run(f"echo >{fifo}", check=True)
                _count(job, "done 00019000", n)
                if n == warm:
                    before = [holdings(guest, pid) for pid in (running.pid, helper)]
            after = [holdings(guest, pid) for pid in (running.pid, helper)]
        assert helpers(guest) == [helper], "the same helper did it all"
    _compare(tell, f"{count} insertions, seed {SEED}", before, after)


def test_many_readers_come_and_go(
    guest: Guest,
    driver: None,  # noqa: F811
    full: bool,
    tell: Tell,
) -> None:
    """Each reader is seen with its card. Half of the readers come back at once, half after a
    while."""
    warm, count = (10, 200) if full else (2, 3)
    reader, chance = guest.readers[1], random.Random(SEED)
    with daemon(guest, 1) as running:
        before = Holdings(0, 0, 0)
        for n in range(1, warm + count + 1):
            said = client(guest, 'print(json.dumps(transmit(connect("lab1"), "0010000002")))')
            assert said == "00019000"
            reader.unplug()
            until(guest, lambda: not readers(guest), 60)
            until(guest, lambda: not helpers(guest), 20)
            if n == warm:
                before = holdings(guest, running.pid)
            if n == warm + count:
                break
            if chance.random() < 0.5:
                time.sleep(chance.random())
            reader.plug()
            until(guest, lambda: readers(guest), 60)
        after = holdings(guest, running.pid)
    _compare(tell, f"{count} readers came and went, seed {SEED}", [before], [after])


def test_a_reader_that_is_plugged_in_gets_its_helper_at_once(
    guest: Guest,
    driver: None,  # noqa: F811
    tell: Tell,
) -> None:
    """Between the kernel's event for the reader and the start of the helper only udev, pcscd and
    the plug work. ``tests/bench/test_first_reply.py`` measures the rest, where Python runs at full
    speed."""
    reader = guest.readers[1]
    with daemon(guest, 1):
        reader.unplug()
        until(guest, lambda: not helpers(guest), 20)
        with guest.popen(["udevadm", "monitor", "--kernel", "--subsystem-match=usb"]) as job:
            job.wait_for("KERNEL - ", 20)
            reader.plug()
            added = float(job.wait_for(r"KERNEL\[([\d.]+)\] add +\S+/[\d.-]+ \(usb\)", 30)[1])
        until(guest, lambda: helpers(guest), 60)
        (helper,) = helpers(guest)
        stat = guest.run(["cat", f"/proc/{helper}/stat"], check=True).stdout
        ticks = int(guest.run(["getconf", "CLK_TCK"], check=True).stdout)
        started = int(stat.rpartition(")")[2].split()[19]) / ticks
        assert started >= added - 1 / ticks
        until(guest, lambda: readers(guest), 60)
        assert client(guest, 'print(json.dumps(transmit(connect("lab1"), "0010000002")))')
    tell(
        f"from the kernel's word of a reader to the start of its helper: "
        f"{(started - added) * 1000:.0f} ms in the guest, to {1000 / ticks:.0f} ms"
    )


def _compare(tell: Tell, what: str, before: list[Holdings], after: list[Holdings]) -> None:
    grown = [b.rss_kib - a.rss_kib for a, b in zip(before, after, strict=True)]
    tell(f"{what}: RSS grew by {grown} KiB (pcscd, helper), {after}")
    assert max(grown) < 2048
    assert [(a.threads, a.descriptors) for a in after] == [
        (b.threads, b.descriptors) for b in before
    ]


def _count(job: Job, text: str, times: int) -> None:
    deadline = time.monotonic() + 60
    while job.stdout.count(text) < times:
        if not job.running or time.monotonic() > deadline:
            pytest.fail(job.stdout[-900:] + job.stderr[-900:])
        time.sleep(0.01)
