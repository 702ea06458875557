"""The USB/IP server, with a small client that behaves like Linux's vhci_hcd."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from ccid.codec.descriptors import (
    ClassControl,
    DeviceDescriptor,
    parse_configuration,
    smart_card_interfaces,
)
from ccid.codec.messages import (
    MESSAGE_HEADER,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_DataBlock,
    RDR_to_PC_NotifySlotChange,
    RDR_to_PC_SlotStatus,
)
from ccid.codes import ExchangeLevel
from ccid.virtual import EchoCard, VirtualReader, faults, make_descriptor
from ccid.virtual.usbip import UsbIpServer, serve_connection, speed_of
from ccid.virtual.usbip_messages import (
    ECONNRESET,
    EPIPE,
    EREMOTEIO,
    SHORT_NOT_OK,
    ZERO_PACKET,
    CmdSubmit,
    CmdUnlink,
    DeviceList,
    Direction,
    ExportedDevice,
    ImportRequest,
    Op,
    OpHeader,
    OpStatus,
    RetSubmit,
    RetUnlink,
    Speed,
)

TIMEOUT_S = 20
OUT, IN, EVENTS = 1, 2, 3
"""Endpoints of the reader."""


class UsbIpClient:
    """The host's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(TIMEOUT_S)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seqnum = 0
        self.returned: dict[int, tuple[RetSubmit, bytes]] = {}
        self.order: list[int] = []
        self.submitted_in: set[int] = set()

    @classmethod
    def to(cls, server: UsbIpServer) -> Self:
        return cls(socket.create_connection(server.address, TIMEOUT_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.sock.close()

    # Before the import ------------------------------------------------------------------------

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def read_all(self) -> bytes:
        data = b""
        while more := self.sock.recv(4096):
            data += more
        return data

    def is_hung_up_on(self) -> bool:
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:  # the server had not read all the data
            return True

    def devices(self) -> DeviceList:
        self.sock.sendall(OpHeader(code=Op.REQ_DEVLIST).build())
        answer = self.read_all()
        assert OpHeader.parse(answer[:8]) == OpHeader(code=Op.REP_DEVLIST)
        return DeviceList.parse(answer[8:])

    def attach(self, busid: str = "1-1") -> OpStatus:
        request = OpHeader(code=Op.REQ_IMPORT).build() + ImportRequest(busid=busid).build()
        self.sock.sendall(request)
        header = OpHeader.parse(self.read(8))
        assert header.code == Op.REP_IMPORT
        if header.status == OpStatus.OK:
            device = ExportedDevice.parse(self.read(312))
            assert device.busid == busid
        return OpStatus(header.status)

    def detach(self) -> None:
        """Hang up, and wait until the server has released the device."""
        self.sock.shutdown(socket.SHUT_WR)
        while self.sock.recv(4096):
            pass

    # URBs -------------------------------------------------------------------------------------

    def submit(
        self,
        endpoint: int,
        direction: Direction,
        length: int = 0,
        data: bytes = b"",
        flags: int = 0,
        setup: bytes = bytes(8),
        packets: int = 0,
    ) -> int:
        """Send a URB; returns its seqnum."""
        self.seqnum += 1
        if direction is Direction.IN:
            self.submitted_in.add(self.seqnum)
        command = CmdSubmit(
            seqnum=self.seqnum,
            devid=1 << 16 | 1,
            direction=direction,
            ep=endpoint,
            transfer_flags=flags,
            transfer_buffer_length=len(data) or length,
            number_of_packets=packets,
            setup=setup,
        )
        self.sock.sendall(command.build() + data)
        return self.seqnum

    def submit_in(self, endpoint: int, length: int, flags: int = 0) -> int:
        return self.submit(endpoint, Direction.IN, length, flags=flags)

    def _return(self) -> None:
        """Read a RET_SUBMIT."""
        ret = RetSubmit.parse(self.read(48))
        data = self.read(ret.actual_length) if ret.seqnum in self.submitted_in else b""
        assert ret.seqnum not in self.returned
        self.returned[ret.seqnum] = ret, data
        self.order.append(ret.seqnum)

    def wait_for(self, seqnum: int) -> tuple[int, bytes]:
        """Status and data of the URB ``seqnum``."""
        while seqnum not in self.returned:
            self._return()
        ret, data = self.returned[seqnum]
        return ret.status, data

    def unlink(self, seqnum: int) -> int:
        """Status of RET_UNLINK."""
        self.seqnum += 1
        self.sock.sendall(CmdUnlink(seqnum=self.seqnum, unlink_seqnum=seqnum).build())
        while True:
            head = self.sock.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)
            if head == b"\0\0\0\4":
                ret = RetUnlink.parse(self.read(48))
                assert ret.seqnum == self.seqnum
                return ret.status
            self._return()

    def control(self, request: ClassControl, data: bytes = b"") -> tuple[int, bytes]:
        direction = Direction(request.bmRequestType >> 7)
        setup = bytes((request.bmRequestType, request.bRequest)) + b"".join(
            value.to_bytes(2, "little")
            for value in (request.wValue, request.wIndex, request.wLength)
        )
        return self.wait_for(self.submit(0, direction, request.wLength, data, setup=setup))

    def synchronize(self) -> None:
        """Return when the server has done everything that was sent before."""
        assert self.control(ClassControl(0x80, 0x08, 0, 0, 1))[0] == 0

    def out(self, data: bytes, flags: int = 0) -> int:
        """The status of an OUT transfer, all of whose bytes are accepted."""
        seqnum = self.submit(OUT, Direction.OUT, data=data, flags=flags)
        status, _ = self.wait_for(seqnum)
        assert self.returned[seqnum][0].actual_length == (0 if status else len(data))
        return status

    def exchange(self, message: bytes, length: int = 65556 + MESSAGE_HEADER) -> bytes:
        assert self.out(message) == 0
        status, data = self.wait_for(self.submit_in(IN, length))
        assert status == 0
        return data

    def power_on(self, slot: int = 0) -> bytes:
        reply = self.exchange(PC_to_RDR_IccPowerOn(bSlot=slot).build())
        return RDR_to_PC_DataBlock.parse(reply).abData

    def configure(self) -> None:
        assert self.control(ClassControl(0x00, 0x09, 1, 0)) == (0, b"")


Serve = Callable[..., UsbIpServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves readers on a free port."""
    with ExitStack() as stack:
        yield lambda *readers: stack.enter_context(UsbIpServer(readers, port=0))


@pytest.fixture
def reader() -> VirtualReader:
    return VirtualReader(EchoCard())


@pytest.fixture
def client(serve: Serve, reader: VirtualReader) -> Iterator[UsbIpClient]:
    """A client that has attached the reader and set its configuration."""
    with UsbIpClient.to(serve(reader)) as client:
        assert client.attach() is OpStatus.OK
        client.configure()
        yield client


def extended_reader() -> VirtualReader:
    descriptor = make_descriptor(
        ExchangeLevel.EXTENDED_APDU, dwMaxCCIDMessageLength=65556 + MESSAGE_HEADER
    )
    return VirtualReader(EchoCard(), descriptor=descriptor)


# Questions ------------------------------------------------------------------------------------


def test_device_list(serve: Serve) -> None:
    readers = [
        VirtualReader(),
        VirtualReader(vendor_id=0x1234, product_id=0x5678, packet_size=512),
    ]
    server = serve(*readers)
    with UsbIpClient.to(server) as client:
        first, second = client.devices().devices
    assert (first.busid, first.speed) == ("1-1", Speed.FULL)
    assert (first.idVendor, first.idProduct) == (0x1209, 0x0001)
    assert (second.busid, second.speed) == ("1-2", Speed.HIGH)
    assert (second.idVendor, second.idProduct) == (0x1234, 0x5678)
    assert (first.busnum, first.devnum) != (second.busnum, second.devnum)
    assert [i.bInterfaceClass for i in first.interfaces] == [0x0B]
    readers[0].unplug()
    with UsbIpClient.to(server) as client:
        assert [device.busid for device in client.devices().devices] == ["1-2"]


def test_an_unknown_or_unplugged_device_is_not_there(serve: Serve, reader: VirtualReader) -> None:
    server = serve(reader)
    with UsbIpClient.to(server) as client:
        assert client.attach("1-2") is OpStatus.NODEV
        assert client.is_hung_up_on()
    reader.unplug()
    with UsbIpClient.to(server) as client:
        assert client.attach("1-1") is OpStatus.NODEV


def test_a_device_is_imported_once_at_a_time(serve: Serve, reader: VirtualReader) -> None:
    server = serve(reader)
    with UsbIpClient.to(server) as first:
        assert first.attach() is OpStatus.OK
        assert server.is_attached("1-1")
        with UsbIpClient.to(server) as second:
            assert second.attach() is OpStatus.DEV_BUSY
            assert second.is_hung_up_on()
        first.configure()
        first.detach()
    assert not server.is_attached("1-1")
    with UsbIpClient.to(server) as third:
        assert third.attach() is OpStatus.OK
        assert third.control(ClassControl(0x80, 0x08, 0, 0, 1)) == (0, b"\0")


def test_two_clients_with_a_device_each(serve: Serve) -> None:
    server = serve(VirtualReader(EchoCard()), VirtualReader(EchoCard()))
    with UsbIpClient.to(server) as one, UsbIpClient.to(server) as two:
        assert one.attach("1-1") is two.attach("1-2") is OpStatus.OK
        for client in (one, two):
            client.configure()
            assert client.power_on() == EchoCard.atr
        serials = [c.control(ClassControl(0x80, 0x06, 0x0303, 0x0409, 255))[1] for c in (one, two)]
        assert serials[0] != serials[1]


# Enumeration ----------------------------------------------------------------------------------


def test_enumeration(client: UsbIpClient, reader: VirtualReader) -> None:
    def descriptor(wValue: int, size: int) -> bytes:
        status, data = client.control(ClassControl(0x80, 0x06, wValue, 0, size))
        assert status == 0
        return data

    assert DeviceDescriptor.parse(descriptor(0x0100, 64)) == reader.device.descriptor
    assert len(descriptor(0x0200, 9)) == 9
    configuration = parse_configuration(descriptor(0x0200, 1024))
    (found,) = smart_card_interfaces(configuration)
    assert found.smart_card == reader.info.reader.smart_card
    assert descriptor(0x0300, 255)[2:] == b"\x09\x04"
    assert descriptor(0x0302, 255)[2:].decode("utf-16-le") == "Virtual Reader"
    assert client.control(ClassControl(0x80, 0x06, 0x0600, 0, 10)) == (EPIPE, b"")
    assert client.control(ClassControl(0x80, 0x08, 0, 0, 1)) == (0, b"\x01")
    assert client.control(ClassControl(0x00, 0x05, 5, 0)) == (0, b"")
    assert client.control(ClassControl(0x21, 0x09, 0, 0, 3), b"abc") == (EPIPE, b"")


def test_both_ways_to_say_not_isochronous(client: UsbIpClient) -> None:
    for packets in (0, -1):
        seqnum = client.submit(
            0, Direction.IN, 2, setup=bytes.fromhex("8000000000000200"), packets=packets
        )
        assert client.wait_for(seqnum) == (0, b"\0\0")
        assert client.returned[seqnum][0].number_of_packets == packets


def test_a_short_control_transfer_where_that_is_not_ok(client: UsbIpClient) -> None:
    setup = bytes.fromhex("8006000100004000")
    seqnum = client.submit(0, Direction.IN, 64, setup=setup, flags=SHORT_NOT_OK)
    status, data = client.wait_for(seqnum)
    assert (status, len(data)) == (EREMOTEIO, 18)


# Messages -------------------------------------------------------------------------------------


def test_slot_status_power_on_and_apdu(client: UsbIpClient) -> None:
    status = RDR_to_PC_SlotStatus.parse(client.exchange(PC_to_RDR_GetSlotStatus(bSeq=9).build()))
    assert (status.bSeq, status.icc_status.name) == (9, "INACTIVE")
    assert client.power_on() == EchoCard.atr
    block = PC_to_RDR_XfrBlock(abData=bytes.fromhex("0010000004"))
    assert RDR_to_PC_DataBlock.parse(client.exchange(block.build())).abData == bytes.fromhex(
        "000102039000"
    )


def test_a_late_answer_reaches_a_waiting_urb(client: UsbIpClient, reader: VirtualReader) -> None:
    client.power_on()
    events = client.submit_in(EVENTS, 16)
    client.wait_for(events)  # the card that is in the reader
    reader.functions[0].extension_s = None
    urb = client.submit_in(IN, 271)
    assert client.out(PC_to_RDR_XfrBlock(abData=bytes.fromhex("0050001E")).build()) == 0
    assert RDR_to_PC_DataBlock.parse(client.wait_for(urb)[1]).abData == b"\x90\x00"


def test_a_late_answer_while_an_event_is_not_asked_for(
    client: UsbIpClient, reader: VirtualReader
) -> None:
    """Data due at an endpoint without a URB must not hide data due at another endpoint."""
    client.power_on()
    reader.functions[0].extension_s = None
    block = PC_to_RDR_XfrBlock(abData=bytes.fromhex("0050001E")).build()
    assert RDR_to_PC_DataBlock.parse(client.exchange(block)).abData == b"\x90\x00"


def test_notifications_reach_a_waiting_urb(client: UsbIpClient, reader: VirtualReader) -> None:
    def notification(*slots: tuple[bool, bool]) -> tuple[int, bytes]:
        return 0, RDR_to_PC_NotifySlotChange.of(list(slots)).build()

    assert client.wait_for(client.submit_in(EVENTS, 16)) == notification((True, True))
    urb = client.submit_in(EVENTS, 16)
    client.synchronize()
    card = reader.remove()
    assert card is not None
    assert client.wait_for(urb) == notification((False, True))
    urb = client.submit_in(EVENTS, 16)
    client.synchronize()
    reader.insert(card)
    assert client.wait_for(urb) == notification((True, True))


def test_waiting_urbs_are_served_in_their_order(client: UsbIpClient) -> None:
    urbs = [client.submit_in(IN, 271) for _ in range(3)]
    for bSeq in range(3):
        assert client.out(PC_to_RDR_GetSlotStatus(bSeq=bSeq).build()) == 0
    for bSeq, urb in enumerate(urbs):
        assert RDR_to_PC_SlotStatus.parse(client.wait_for(urb)[1]).bSeq == bSeq
    assert [seqnum for seqnum in client.order if seqnum in urbs] == urbs


def test_transfers_are_counted(client: UsbIpClient, reader: VirtualReader) -> None:
    reader.port.transfers.clear()
    client.power_on()
    client.synchronize()
    assert reader.port.transfers == {OUT: 1, 0x80 | IN: 1, 0: 1}


# Unlink ---------------------------------------------------------------------------------------


def test_unlink(client: UsbIpClient) -> None:
    urb = client.submit_in(IN, 271)
    assert client.unlink(urb) == ECONNRESET
    assert client.power_on() == EchoCard.atr
    assert urb not in client.returned
    assert client.unlink(urb) == 0
    done = client.submit_in(EVENTS, 16)
    client.wait_for(done)
    assert client.unlink(done) == 0
    assert client.unlink(12345) == 0


def test_unlink_the_middle_one(client: UsbIpClient) -> None:
    first, second, third = (client.submit_in(IN, 271) for _ in range(3))
    assert client.unlink(second) == ECONNRESET
    for bSeq in (1, 2):
        assert client.out(PC_to_RDR_GetSlotStatus(bSeq=bSeq).build()) == 0
    assert client.wait_for(first)[1][6] == 1
    assert client.wait_for(third)[1][6] == 2


# Halts ----------------------------------------------------------------------------------------


def clear_halt(client: UsbIpClient, endpoint: int) -> None:
    assert client.control(ClassControl(0x02, 0x01, 0, endpoint)) == (0, b"")


def test_out_stalls_until_its_halt_is_cleared(client: UsbIpClient) -> None:
    assert client.out(b"short") == EPIPE
    assert client.out(PC_to_RDR_GetSlotStatus().build()) == EPIPE
    assert client.control(ClassControl(0x82, 0x00, 0, OUT, 2)) == (0, b"\x01\x00")
    clear_halt(client, OUT)
    assert client.power_on() == EchoCard.atr


def test_in_stalls_until_its_halt_is_cleared(client: UsbIpClient, reader: VirtualReader) -> None:
    reader.faults.append(faults.stall_in())
    waiting = [client.submit_in(IN, 271) for _ in range(2)]
    assert client.out(PC_to_RDR_GetSlotStatus().build()) == 0
    assert [client.wait_for(urb) for urb in waiting] == [(EPIPE, b"")] * 2
    assert client.wait_for(client.submit_in(IN, 271)) == (EPIPE, b"")
    clear_halt(client, 0x80 | IN)
    assert client.power_on() == EchoCard.atr


def test_an_endpoint_that_is_not_there(client: UsbIpClient) -> None:
    assert client.wait_for(client.submit_in(9, 64)) == (EPIPE, b"")
    assert (
        client.wait_for(client.submit(9, Direction.OUT, data=b"x", flags=ZERO_PACKET))[0] == EPIPE
    )


# Long messages --------------------------------------------------------------------------------

URB = 16384


def echo(size: int) -> bytes:
    """A command APDU that a card answers with its data, ``size`` bytes."""
    apdu = b"\0\x30\0\0\0" + size.to_bytes(2, "big") + bytes(i % 251 for i in range(size)) + b"\0\0"
    return PC_to_RDR_XfrBlock(abData=apdu).build()


@pytest.fixture
def long_client(serve: Serve) -> Iterator[UsbIpClient]:
    with UsbIpClient.to(serve(extended_reader())) as client:
        assert client.attach() is OpStatus.OK
        client.configure()
        client.power_on()
        yield client


def send_in_urbs(client: UsbIpClient, message: bytes) -> None:
    urbs = [
        client.submit(OUT, Direction.OUT, data=message[at : at + URB])
        for at in range(0, len(message), URB)
    ]
    assert len(urbs) > 1
    for urb in urbs:
        assert client.wait_for(urb)[0] == 0


def test_a_message_in_several_urbs_both_ways(long_client: UsbIpClient) -> None:
    client = long_client
    send_in_urbs(client, echo(40000))
    urbs = [client.submit_in(IN, URB, SHORT_NOT_OK) for _ in range(2)] + [client.submit_in(IN, URB)]
    parts = [client.wait_for(urb) for urb in urbs]
    assert [(status, len(data)) for status, data in parts] == [
        (0, URB),
        (0, URB),
        (0, 40000 + 12 - 2 * URB),
    ]
    reply = RDR_to_PC_DataBlock.parse(b"".join(data for _, data in parts))
    assert reply.abData == bytes(i % 251 for i in range(40000)) + b"\x90\x00"


def test_a_message_in_one_urb(long_client: UsbIpClient) -> None:
    reply = long_client.exchange(echo(65000))
    assert len(reply) == 65000 + 12


def test_a_message_of_full_packets_ends_with_an_empty_one(long_client: UsbIpClient) -> None:
    client = long_client
    send_in_urbs(client, echo(2 * URB - 12))
    urbs = [client.submit_in(IN, URB) for _ in range(3)]
    sizes = [len(client.wait_for(urb)[1]) for urb in urbs]
    assert sizes == [URB, URB, 0]
    assert len(client.exchange(echo(2 * URB - 12))) == 2 * URB


def test_what_is_left_of_a_transfer_stays_empty(long_client: UsbIpClient) -> None:
    """An answer is too short for the first of several URBs: the second URB waits for its unlink,
    and the next answer goes to the next transfer."""
    client = long_client
    first, second, last = (client.submit_in(IN, URB, flags) for flags in (1, 1, 0))
    following = client.submit_in(IN, URB)
    assert client.out(PC_to_RDR_GetSlotStatus(bSeq=1).build()) == 0
    status, data = client.wait_for(first)
    assert (status, len(data)) == (EREMOTEIO, MESSAGE_HEADER)
    assert client.out(PC_to_RDR_GetSlotStatus(bSeq=2).build()) == 0
    assert client.wait_for(following)[1][6] == 2
    assert [client.unlink(urb) for urb in (second, last)] == [ECONNRESET] * 2
    assert client.unlink(first) == 0


def test_a_transfer_stays_open_after_full_packets(
    client: UsbIpClient, reader: VirtualReader
) -> None:
    """A reader that ends full packets without an empty packet: the next message comes in the same
    URB."""
    client.power_on()
    reader.functions[0].bulk_in.ends_full_packets = False
    urb = client.submit_in(IN, 271)
    block = PC_to_RDR_XfrBlock(abData=bytes.fromhex("0010000034"))  # 64 bytes with header and SW
    assert client.out(block.build()) == 0
    client.synchronize()
    assert urb not in client.returned
    assert client.out(PC_to_RDR_GetSlotStatus(bSeq=7).build()) == 0
    status, data = client.wait_for(urb)
    assert (status, len(data), data[64 + 6]) == (0, 64 + MESSAGE_HEADER, 7)


def test_zero_packet_ends_an_out_transfer(client: UsbIpClient, reader: VirtualReader) -> None:
    """The first 64 bytes promise more; the flag says that no more will come."""
    head = PC_to_RDR_XfrBlock(bSeq=3, abData=bytes(200)).build()[:64]
    assert client.out(head) == 0
    urb = client.submit_in(IN, 271)
    client.synchronize()
    assert urb not in client.returned
    client.configure()
    assert client.out(head, ZERO_PACKET) == 0
    reply = RDR_to_PC_DataBlock.parse(client.wait_for(urb)[1])
    assert (reply.bSeq, reply.command_status.name, reply.bError) == (3, "FAILED", 1)


@pytest.mark.parametrize(
    ("size", "flags", "transfers"),
    [
        (64, ZERO_PACKET, [64, 0]),
        (128, ZERO_PACKET, [128, 0]),
        (63, ZERO_PACKET, [63]),
        (0, ZERO_PACKET, [0]),
        (64, 0, [64]),
    ],
)
def test_transfers_the_device_gets(
    client: UsbIpClient,
    reader: VirtualReader,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    flags: int,
    transfers: list[int],
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(reader.functions[0], "bulk_out", lambda data, now: sizes.append(len(data)))
    assert client.out(bytes(size), flags) == 0
    assert sizes == transfers


# End of a connection --------------------------------------------------------------------------


def test_unplugging_hangs_up(client: UsbIpClient, reader: VirtualReader) -> None:
    client.submit_in(EVENTS, 16)
    client.synchronize()
    client.submit_in(IN, 271)
    client.synchronize()
    reader.unplug()
    assert client.is_hung_up_on()


def test_a_reader_that_unplugs_itself(client: UsbIpClient, reader: VirtualReader) -> None:
    reader.faults.append(faults.unplugged())
    assert client.out(PC_to_RDR_GetSlotStatus().build()) == 0
    assert client.is_hung_up_on()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        OpHeader(code=0x8006).build(),
        OpHeader(code=Op.REQ_IMPORT).build() + b"\xff" * 32,
    ],
)
def test_garbage_for_a_question(
    serve: Serve, reader: VirtualReader, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(reader)
    with UsbIpClient.to(server) as client:
        client.sock.sendall(garbage)
        assert client.is_hung_up_on()
    assert len(warnings_of(caplog)) == 1
    with UsbIpClient.to(server) as client:
        assert client.attach() is OpStatus.OK


def test_a_question_that_breaks_off(
    serve: Serve, reader: VirtualReader, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(reader)
    with UsbIpClient.to(server) as client:
        client.sock.sendall(OpHeader(code=Op.REQ_IMPORT).build() + b"1-1")
        client.detach()
    assert len(warnings_of(caplog)) == 1


def test_garbage_for_a_command(
    client: UsbIpClient, reader: VirtualReader, caplog: pytest.LogCaptureFixture
) -> None:
    client.sock.sendall(bytes(48))
    assert client.is_hung_up_on()
    assert len(warnings_of(caplog)) == 1


def test_a_urb_submitted_twice(client: UsbIpClient, caplog: pytest.LogCaptureFixture) -> None:
    client.submit_in(IN, 271)
    client.seqnum -= 1
    client.submit_in(IN, 271)
    assert client.is_hung_up_on()
    assert len(warnings_of(caplog)) == 1


def test_closing_the_server_hangs_up(reader: VirtualReader) -> None:
    server = UsbIpServer([reader], port=0).start()
    with UsbIpClient.to(server) as client, UsbIpClient.to(server) as silent:
        assert client.attach() is OpStatus.OK
        server.close()
        assert client.is_hung_up_on()
        assert silent.is_hung_up_on()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        UsbIpClient.to(server)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_only_loopback(host: str, reader: VirtualReader) -> None:
    with pytest.raises(ValueError, match="loopback"):
        UsbIpServer([reader], host, 0)


def test_a_port_that_is_taken(serve: Serve, reader: VirtualReader) -> None:
    server = serve(reader)
    with pytest.raises(OSError, match="in use"):
        UsbIpServer([reader], port=server.address[1]).start()


# Embedded -------------------------------------------------------------------------------------


def test_a_connection_that_exists_already(reader: VirtualReader) -> None:
    assert speed_of(reader.port) is Speed.FULL
    kernel, ours = socket.socketpair()
    thread = threading.Thread(target=serve_connection, args=(ours, reader.port))
    thread.start()
    with UsbIpClient(kernel) as client:
        client.configure()
        assert client.power_on() == EchoCard.atr
        client.detach()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    assert ours.fileno() == -1
    reader.insert(EchoCard())  # no client is informed any more


# The program ----------------------------------------------------------------------------------


class Program:
    """``python -m ccid.virtual`` as a process."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ccid.virtual", "--usbip", "127.0.0.1:0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.printed = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self.process:
            self.process.kill()

    def line(self) -> str:
        assert self.process.stdout is not None
        out = self.process.stdout.fileno()
        while b"\n" not in self.printed:
            ready, _, _ = select.select([out], [], [], TIMEOUT_S)
            data = os.read(out, 4096) if ready else b""
            assert data, f"it printed only {self.printed!r}"
            self.printed += data
        line, self.printed = self.printed.split(b"\n", 1)
        return line.decode()

    def connect(self, line: str) -> UsbIpClient:
        host, port = line.rsplit(" ", 1)[1].split(":")
        return UsbIpClient(socket.create_connection((host, int(port)), TIMEOUT_S))

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, errors.decode()


posix = pytest.mark.skipif(os.name != "posix", reason="signals and Unix sockets")


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program(number: int) -> None:
    with Program("--count", "2", "--id", "1a2B:0003", "--level", "tpdu", "--high-speed") as program:
        lines = [program.line(), program.line()]
        assert lines[0].startswith("usbip: 1-1 1a2b:0003 Virtual Reader on 127.0.0.1:")
        assert lines[1].startswith("usbip: 1-2 ")
        with program.connect(lines[0]) as client:
            first, second = client.devices().devices
            assert (first.idVendor, first.speed, second.busid) == (0x1A2B, Speed.HIGH, "1-2")
        with program.connect(lines[1]) as client:
            assert client.attach("1-2") is OpStatus.OK
            client.configure()
            client.submit_in(IN, 271)
            client.synchronize()
            assert program.end(number) == (0, "")
            assert client.is_hung_up_on()


@posix
@pytest.mark.parametrize(("option", "seen"), [("--log", False), ("--log-secrets", True)])
def test_the_log_of_the_program_masks_pins(option: str, seen: bool) -> None:
    with Program("--card", "echo", option) as program:
        with program.connect(program.line()) as client:
            assert client.attach() is OpStatus.OK
            client.configure()
            client.power_on()
            verify = bytes.fromhex("0020000004 31323334")
            reply = client.exchange(PC_to_RDR_XfrBlock(abData=verify).build())
            assert reply[MESSAGE_HEADER:] == b"\x90\x00"
        code, errors = program.end(signal.SIGTERM)
    assert code == 0
    assert "PC_to_RDR_XfrBlock" in errors
    assert ("31 32 33 34" in errors) is seen


@posix
def test_the_hand_at_the_readers(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with Program("--count", "2", "--slots", "2", "--control", str(path)) as program:
        line = program.line()
        assert path.stat().st_mode & 0o077 == 0
        with (
            socket.socket(socket.AF_UNIX) as control,
            control.makefile("rw") as lines,
            program.connect(line) as client,
        ):
            control.settimeout(TIMEOUT_S)
            control.connect(str(path))

            def ask(command: str) -> str:
                lines.write(command + "\n")
                lines.flush()
                return lines.readline().rstrip("\n")

            assert ask("status") == "ok 1-1=free:inactive,inactive 1-2=free:inactive,inactive"
            assert client.attach() is OpStatus.OK
            client.configure()
            client.power_on(1)
            client.wait_for(client.submit_in(EVENTS, 16))
            urb = client.submit_in(EVENTS, 16)
            client.synchronize()
            assert ask("card out") == "ok 1-1=attached:absent,active"
            assert client.wait_for(urb) == (0, bytes.fromhex("50 06"))
            assert ask("card out 1-1 1") == "ok 1-1=attached:absent,absent"
            assert ask("card out 1") == "error 1-1 slot 1 has no card"
            assert ask("card in 1") == "ok 1-1=attached:absent,inactive"
            assert ask("card in 1-2") == "error 1-2 slot 0 has a card"
            assert ask("card in 2") == "error no slot 2"
            assert ask("card in 1-3") == "error no reader 1-3"
            assert ask("card").startswith("error the commands are")
            assert ask("reader in") == "error 1-1 is plugged in"
            assert ask("reader out") == "ok 1-1=unplugged:absent,inactive"
            assert client.is_hung_up_on()
            assert ask("reader in 1-1") == "ok 1-1=free:absent,inactive"
        assert program.end(signal.SIGTERM) == (0, "")
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--usbip", "0.0.0.0:3240"], "loopback"),
        (["--usbip", "127.0.0.1:99999"], "port"),
        (["--usbip", "127.0.0.1:0", "--id", "12:34"], "hex"),
        (["--usbip", "127.0.0.1:0", "--slots", "0"], "1 to 255"),
        ([], "--usbip"),
    ],
)
def test_wrong_arguments(arguments: list[str], complaint: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ccid.virtual", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 2
    assert complaint in ran.stderr
