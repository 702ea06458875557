"""USB/IP messages, compared with bytes written by hand from the tables of the protocol."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.errors import MalformedMessage
from ccid.virtual import usbip_messages as messages
from ccid.virtual.usbip_messages import (
    CmdSubmit,
    CmdUnlink,
    CommandStream,
    DeviceList,
    Direction,
    ExportedDevice,
    ExportedInterface,
    ImportRequest,
    ListedDevice,
    Op,
    OpHeader,
    OpStatus,
    RetSubmit,
    RetUnlink,
    Submit,
    Unlink,
)

u32 = st.integers(0, 0xFFFF_FFFF)
s32 = st.integers(-(1 << 31), (1 << 31) - 1)

DEVICE: dict[str, Any] = {
    "path": "/sys/devices/virtual/usb1/1-2",
    "busid": "1-2",
    "busnum": 1,
    "devnum": 2,
    "speed": 2,
    "idVendor": 0x1209,
    "idProduct": 0x0001,
    "bcdDevice": 0x0100,
    "bDeviceClass": 0,
    "bDeviceSubClass": 0,
    "bDeviceProtocol": 0,
    "bConfigurationValue": 1,
    "bNumConfigurations": 1,
    "bNumInterfaces": 1,
}
RAW_DEVICE = (
    b"/sys/devices/virtual/usb1/1-2".ljust(256, b"\0")
    + b"1-2".ljust(32, b"\0")
    + bytes.fromhex("00000001 00000002 00000002 1209 0001 0100 00 00 00 01 01 01")
)


# Questions and answers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "raw"),
    [
        (OpHeader(code=Op.REQ_DEVLIST), "0111 8005 00000000"),
        (OpHeader(code=Op.REP_DEVLIST), "0111 0005 00000000"),
        (OpHeader(code=Op.REQ_IMPORT), "0111 8003 00000000"),
        (OpHeader(code=Op.REP_IMPORT, status=OpStatus.DEV_BUSY), "0111 0003 00000002"),
    ],
)
def test_header(header: OpHeader, raw: str) -> None:
    assert header.build() == bytes.fromhex(raw)
    assert OpHeader.parse(bytes.fromhex(raw)) == header


def test_another_version_is_refused() -> None:
    with pytest.raises(MalformedMessage) as caught:
        OpHeader.parse(bytes.fromhex("0106 8005 00000000"))
    assert caught.value.field == "version"


def test_import_request() -> None:
    assert ImportRequest.parse(b"1-12" + bytes(28)).busid == "1-12"
    assert ImportRequest(busid="1-12").build() == b"1-12" + bytes(28)


@pytest.mark.parametrize("raw", [b"1" * 32, b"\xff\xfe" + bytes(30), b"1-1\0", b""])
def test_malformed_busid(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        ImportRequest.parse(raw)


def test_busid_that_does_not_fit() -> None:
    with pytest.raises(MalformedMessage):
        ImportRequest(busid="1" * 32).build()


def test_device() -> None:
    assert ExportedDevice(**DEVICE).build() == RAW_DEVICE
    assert len(RAW_DEVICE) == 312
    assert ExportedDevice.parse(RAW_DEVICE) == ExportedDevice(**DEVICE)


def test_device_list() -> None:
    interface = ExportedInterface(bInterfaceClass=0x0B, bInterfaceSubClass=0, bInterfaceProtocol=0)
    listed = DeviceList(
        devices=[
            ListedDevice(**DEVICE, interfaces=[interface]),
            ListedDevice(**DEVICE | {"bNumInterfaces": 2}, interfaces=[interface, interface]),
        ]
    )
    second = RAW_DEVICE[:-1] + b"\x02"
    one = bytes.fromhex("0B000000")
    raw = bytes.fromhex("00000002") + RAW_DEVICE + one + second + one + one
    assert listed.build() == raw
    assert DeviceList.parse(raw) == listed
    assert DeviceList(devices=[]).build() == bytes(4)


def test_device_list_that_breaks_off() -> None:
    with pytest.raises(MalformedMessage):
        DeviceList.parse(bytes.fromhex("00000001") + RAW_DEVICE)


# URBs -----------------------------------------------------------------------------------------


def test_cmd_submit() -> None:
    raw = bytes.fromhex(
        "00000001 00000D05 0001000F 00000001 00000000"
        "00000200 00000012 00000000 FFFFFFFF 00000000 8006000100001200"
    )
    command = CmdSubmit(
        seqnum=0xD05,
        devid=0x1000F,
        direction=Direction.IN,
        transfer_flags=0x200,
        transfer_buffer_length=18,
        number_of_packets=-1,
        setup=bytes.fromhex("8006000100001200"),
    )
    assert command.build() == raw
    assert CmdSubmit.parse(raw) == command
    assert list(CommandStream().feed(raw)) == [
        Submit(0xD05, 0x80, 0x200, 18, -1, command.setup, b"")
    ]


def test_cmd_unlink() -> None:
    raw = bytes.fromhex("00000002 00000D06 0001000F 00000001 00000001 00000D05") + bytes(24)
    command = CmdUnlink(
        seqnum=0xD06, devid=0x1000F, direction=Direction.IN, ep=1, unlink_seqnum=0xD05
    )
    assert command.build() == raw
    assert CmdUnlink.parse(raw) == command
    assert list(CommandStream().feed(raw)) == [Unlink(0xD06, 0xD05)]


@given(u32, s32, s32, s32)
def test_ret_submit_is_as_declared(seqnum: int, status: int, length: int, packets: int) -> None:
    assert (
        messages.ret_submit(seqnum, status, length, packets)
        == RetSubmit(
            seqnum=seqnum, status=status, actual_length=length, number_of_packets=packets
        ).build()
    )


@given(u32, s32)
def test_ret_unlink_is_as_declared(seqnum: int, status: int) -> None:
    assert messages.ret_unlink(seqnum, status) == RetUnlink(seqnum=seqnum, status=status).build()


def test_returns_are_48_bytes() -> None:
    raw = messages.ret_submit(1, messages.EPIPE, 2, 0)
    assert raw == bytes.fromhex(
        "00000003 00000001 00000000 00000000 00000000"
        "FFFFFFE0 00000002 00000000 00000000 00000000 0000000000000000"
    )
    raw = messages.ret_unlink(1, messages.ECONNRESET)
    assert raw == bytes.fromhex("00000004 00000001 00000000 00000000 00000000 FFFFFF98" + "00" * 24)


submits = st.builds(
    CmdSubmit,
    seqnum=u32,
    devid=u32,
    direction=st.sampled_from(Direction),
    ep=st.integers(0, 15),
    transfer_flags=u32,
    transfer_buffer_length=st.integers(0, 300),
    start_frame=s32,
    number_of_packets=st.sampled_from(messages.NOT_ISOCHRONOUS),
    interval=s32,
    setup=st.binary(min_size=8, max_size=8),
)
unlinks = st.builds(
    CmdUnlink, seqnum=u32, devid=u32, direction=st.sampled_from(Direction), unlink_seqnum=u32
)


@given(st.lists(st.one_of(submits, unlinks), max_size=8), st.data())
def test_stream_reads_what_is_declared_however_it_is_cut(
    commands: list[CmdSubmit | CmdUnlink], data: st.DataObject
) -> None:
    raw, expected = b"", list[Submit | Unlink]()
    for command in commands:
        raw += command.build()
        if isinstance(command, CmdUnlink):
            expected.append(Unlink(command.seqnum, command.unlink_seqnum))
            continue
        length = command.transfer_buffer_length
        out = bytes(length) if command.direction == Direction.OUT else b""
        raw += out
        expected.append(
            Submit(
                command.seqnum,
                command.ep | command.direction << 7,
                command.transfer_flags,
                length,
                command.number_of_packets,
                command.setup,
                out,
            )
        )
    stream, got = CommandStream(), list[Submit | Unlink]()
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        got += stream.feed(raw[:size])
        raw = raw[size:]
    assert got == expected


WRONG = {
    "command": (0, 5),
    "direction": (12, 2),
    "ep": (16, 16),
    "transfer_buffer_length": (24, messages.MAX_TRANSFER + 1),
    "number_of_packets": (32, 1),
}


@pytest.mark.parametrize("field", WRONG)
def test_stream_refuses_what_the_declaration_refuses(field: str) -> None:
    raw = bytearray(CmdSubmit(seqnum=7).build())
    struct.pack_into(">I", raw, *WRONG[field])
    with pytest.raises(MalformedMessage) as declared:
        CmdSubmit.parse(bytes(raw))
    with pytest.raises(MalformedMessage) as caught:
        list(CommandStream().feed(bytes(raw)))
    assert caught.value.field == declared.value.field == field


def test_a_negative_length_is_refused() -> None:
    raw = bytearray(CmdSubmit(seqnum=7).build())
    struct.pack_into(">i", raw, 24, -1)
    with pytest.raises(MalformedMessage):
        list(CommandStream().feed(bytes(raw)))


def test_commands_before_a_wrong_one_are_read() -> None:
    unlink = CmdUnlink(seqnum=1, unlink_seqnum=2).build()
    commands = CommandStream().feed(unlink * 2 + b"?" * 48)
    assert [next(commands), next(commands)] == [Unlink(1, 2)] * 2
    with pytest.raises(MalformedMessage):
        next(commands)


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waited_on(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        list(CommandStream().feed(data))


def test_what_was_submitted_shows_no_data() -> None:
    shown = repr(Submit(1, 1, 0, 4, 0, bytes(8), b"1234"))
    assert "1234" not in shown
    assert "<4 bytes>" in shown
