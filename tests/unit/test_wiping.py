"""No buffer of ours keeps a PIN or key once the exchange is over."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import SupportsIndex

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_XfrBlock
from ccid.codes import ExchangeLevel, Protocol
from ccid.errors import CcidError
from ccid.iso7816.secret_instructions import UNSECRET_INS
from ccid.masking.secret_commands import carries_secret
from ccid.pcsc.plug.frames import REQUEST, Operation, Requests
from ccid.pcsc.service.client_messages import HEADER, TRANSMIT, Command
from ccid.virtual import faults, make_descriptor
from ccid.virtual.faults import Fault
from tests.unit.fake_pcsc import FakeSlot
from tests.unit.pcsc_clients import Server
from tests.unit.pin_in_memory import BAR, LEVELS, SIZE, SW
from tests.unit.test_secrets_everywhere import ANSWER, Confidant

KEY = b"q7#Zk4!x"
VERIFY = bytes.fromhex("0020008108") + KEY
WAYS = [
    *((level, protocol, 1) for level in ExchangeLevel for protocol in Protocol),
    (ExchangeLevel.SHORT_APDU, Protocol.T0, 2),
    (ExchangeLevel.TPDU, Protocol.T1, 2),
]
ROOT = Path(__file__).parents[2]


def found_in(pid: int, secret: bytes) -> list[str]:
    """Where ``secret`` is in the memory that a process can write: as a core dump has it."""
    found = []
    maps = Path(f"/proc/{pid}/maps").read_text("ascii", "replace")
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps.splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            start, end = (int(one, 16) for one in match.groups())
            memory.seek(start)
            there = bytearray()
            while len(there) < end - start and (more := memory.read(end - start - len(there))):
                there += more
            found += [f"{start + one.start():#x} {line}" for one in re.finditer(secret, there)]
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/PID/mem is of Linux")
@pytest.mark.parametrize("level", LEVELS)
def test_the_memory_of_a_process_that_verified_a_pin(level: str) -> None:
    """The caller's own copies are there, the command and the response, and no other."""
    hidden = os.urandom(2 * SIZE)
    pin, answer = (bytes(one ^ BAR for one in part) for part in (hidden[:SIZE], hidden[SIZE:]))
    command = [sys.executable, "-m", "tests.unit.pin_in_memory", level]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(hidden)
        assert process.stdout.read(2) == SW
        pins, answers = (found_in(process.pid, re.escape(one)) for one in (pin, answer))
        process.stdin.write(b"\n")
    assert process.returncode == 0
    assert len(pins) == 1, pins
    assert len(answers) == 1, answers


def kept(reader: ccid.Reader) -> bool:
    """A piece of the key or of the answer is in the buffers of the reader."""
    transport = reader.transport
    there = bytes(transport.out) + bytes(transport.inp)
    return any(secret[i : i + 3] in there for secret in (KEY, ANSWER) for i in range(6))


@pytest.mark.parametrize("way", WAYS)
def test_the_buffers_of_a_reader(way: tuple[ExchangeLevel, Protocol, int]) -> None:
    level, protocol, slots = way
    descriptor = make_descriptor(level, slots, bMaxCCIDBusySlots=slots)
    cards = [Confidant() for _ in range(slots)]
    virtual = ccid.VirtualReader(cards, descriptor=descriptor, escape=lambda data: ANSWER)
    with ccid.open_reader(virtual) as reader:
        with reader.slots[0].connect(protocol, auto_get_response=True) as card:
            assert card.transmit(VERIFY + b"\0") == ANSWER + SW
            assert not kept(reader)
            card.transmit(bytearray(VERIFY))
            card.transmit(bytes.fromhex("00C0000008"))
            assert not kept(reader)
            reader.slots[0].escape(VERIFY)
            assert not kept(reader)
            card.transmit(VERIFY[:4] + bytes((200,)) + KEY * 25 + b"\0")
            assert not kept(reader)


FAULTS = [
    faults.failing(0xFB),
    faults.silence(),
    faults.stall_in(),
    faults.cut_short(to=16),
    faults.lying_length(by=-3),
    faults.time_extensions(2),
    faults.wrong_sequence(),
    faults.unplugged(),
]


@pytest.mark.parametrize("fault", FAULTS, ids=range(len(FAULTS)))
@pytest.mark.parametrize("slots", [1, 2])
def test_after_an_error(fault: Fault, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccid.session.exchange.agreement.exchange_timeout", lambda *_: 0.1)
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, slots, bMaxCCIDBusySlots=slots)
    virtual = ccid.VirtualReader([Confidant() for _ in range(slots)], descriptor=descriptor)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        fault.on = PC_to_RDR_XfrBlock
        virtual.faults.append(fault)
        with suppress(CcidError):
            card.transmit(VERIFY + b"\0")
        transport = reader.transport  # the reply to a command that was given up may come later
        assert KEY[:3] not in bytes(transport.out)
        assert ANSWER[:3] not in bytes(transport.inp)


def test_what_costs_nothing_is_no_secret() -> None:
    """The instructions whose commands without data are not wiped are shown by a trace, too."""
    for cla in range(0x20):
        for ins in UNSECRET_INS:
            for p1 in 0, 1, 4, 0x3F, 0x80:
                assert not carries_secret(bytes((cla, ins, p1, 0, 8))), f"{cla:02X} {ins:02X}"


def test_the_buffer_of_the_plugs_helper() -> None:
    ours, plugs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, plugs:
        requests = Requests(ours)
        for apdu in VERIFY, bytes.fromhex("00B0000000"):
            plugs.send(REQUEST.pack(Operation.TRANSMIT, 0, 300, len(apdu)) + apdu)
            assert requests.receive() == (Operation.TRANSMIT, 0, 300, apdu)
            assert KEY[:3] not in bytes(requests._buffer)


class Noting(bytearray):
    """Notes what is left in the memory of bytes that are taken away."""

    left = b""

    def __delitem__(self, where: SupportsIndex | slice) -> None:
        Noting.left += bytes(self)
        super().__delitem__(where)


def test_what_a_client_of_the_service_said() -> None:
    server = Server(FakeSlot())
    client = server.client()
    client.session._in = Noting()
    body = TRANSMIT.pack(1, 1, 8, len(VERIFY), 1, 8, 300, 0)
    client.session.received(HEADER.pack(len(body), Command.TRANSMIT) + body + VERIFY)
    assert len(Noting.left) > len(body)
    assert KEY[:3] not in Noting.left
