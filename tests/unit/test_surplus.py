"""Bytes behind the dwLength bytes of a message: the message is kept, the bytes are dropped."""

from __future__ import annotations

import time

import pytest

from ccid.codec.messages import Command, PC_to_RDR_XfrBlock
from ccid.errors import MalformedMessage
from ccid.link import inbox
from ccid.link.pipe import Pipe
from ccid.link.slot_commands import Commands
from tests.unit.scripted import Answer, ScriptedTransport
from tests.unit.test_pipe import DATA, WAYS, both_ways, data_block, extension

COMMANDS = 50


@WAYS
@pytest.mark.parametrize("fill", [b"\0", b"\x80"])
@pytest.mark.parametrize(
    "surplus", [1, 2, 9, 10, 50, 51, 53, 200, 497, 498, 499, 500, 1000, 4096, 30000, 100000]
)
def test_one_reply_with_more_behind_it(surplus: int, fill: bytes, way: int) -> None:
    """All later commands are answered as well."""
    first = [True]

    def answer(command: Command) -> Answer:
        more = fill * surplus if first.pop() else b""
        first.append(False)
        return data_block(command) + more

    transport = ScriptedTransport(answer)
    transport.paced = False
    pipe = Pipe(transport, name="script")
    send = both_ways(pipe)[way]
    assert [send() for _ in range(COMMANDS)] == [DATA] * COMMANDS
    assert transport.pending == []
    assert pipe.inbox.surplus == surplus or pipe.stale


@WAYS
@pytest.mark.parametrize("size", [0, 40, 52, 300, 500, 501, 900, 65544])
def test_every_reply_filled_up(size: int, way: int) -> None:
    """Filled up to whole packets, and one packet more."""
    data = bytes(i & 0xFF for i in range(size)) + b"\x90\x00"

    def answer(command: Command) -> Answer:
        message = data_block(command, abData=data)
        return message + bytes(-len(message) % 64 + 64)

    transport = ScriptedTransport(answer)
    transport.paced = False
    pipe = Pipe(transport, name="script")
    assert [both_ways(pipe)[way]() for _ in range(20)] == [data] * 20
    assert pipe.inbox.surplus >= 20 * 59  # a message that fills its reads ends without


@WAYS
@pytest.mark.parametrize("fill", [0, 54])
def test_a_message_behind_another_in_one_transfer(fill: int, way: int) -> None:
    """No short packet ended the first message: a time extension, and a late answer of whole
    packets."""

    def answer(command: Command) -> Answer:
        late = data_block(command, bSeq=(command.bSeq - 1) & 0xFF, abData=bytes(54))
        return late + extension(command, 1) + data_block(command) + bytes(fill)

    transport = ScriptedTransport(answer)
    transport.paced = False
    pipe = Pipe(transport, name="script")
    assert [both_ways(pipe)[way]() for _ in range(270)] == [DATA] * 270
    assert pipe.stale == 270


@WAYS
def test_a_reply_that_comes_while_the_surplus_is_fetched(way: int) -> None:
    long = bytes(3000) + b"\x90\x00"

    def answer(command: Command) -> Answer:
        reply = data_block(command, abData=long)
        return [extension(command, 1) + bytes(54), reply[:64], reply[64:]]

    transport = ScriptedTransport(answer)
    transport.paced = False
    assert both_ways(Pipe(transport, name="script"))[way]() == long


@WAYS
def test_a_surplus_without_end_is_bounded(way: int) -> None:
    class Endless(ScriptedTransport):
        """The first reply is followed by full packets without end."""

        fetched = 0

        def receive(self, offset: int, size: int, timeout_ms: int) -> int:
            if self.pending:
                return super().receive(offset, size, timeout_ms)
            if len(self.commands) > 1:
                return super().receive(offset, size, timeout_ms)
            self.inp[offset : offset + size] = b"\xee" * size
            self.fetched += size
            return size

    transport = Endless(lambda c: data_block(c) + bytes(50))
    pipe = Pipe(transport, name="script")
    began = time.monotonic()
    assert both_ways(pipe)[way]() == DATA
    assert transport.fetched < 4 * inbox.SURPLUS_BYTES
    assert both_ways(pipe)[way]() == DATA
    assert time.monotonic() - began < 2 * inbox.REST_MS / 1000


@WAYS
def test_what_is_no_message_and_nobodys_is_dropped(way: int) -> None:
    """A transfer full of other bytes, before the reply."""
    for garbage in (
        b"A" * 30000,
        bytes(3000),
        b"\x80" + b"\xee" * 63,
        b"\x80\1\0\0\0\1\1" + b"\0" * 60,
    ):

        def answer(command: Command, garbage: bytes = garbage) -> Answer:
            return [garbage, data_block(command)]

        transport = ScriptedTransport(answer)
        transport.paced = False
        pipe = Pipe(transport, name="script")
        pipe.count = 40
        send = both_ways(pipe)[way]
        assert [send() for _ in range(5)] == [DATA] * 5
        assert pipe.stale >= 5


def test_after_a_message_that_announces_too_much_the_rest_is_fetched() -> None:
    def answer(command: Command) -> Answer:
        if isinstance(command, PC_to_RDR_XfrBlock) and command.bSeq == 0:
            message = data_block(command)
            return message[:1] + b"\xff\xff\xff\x7f" + message[5:] + bytes(20000)
        return data_block(command)

    transport = ScriptedTransport(answer)
    transport.paced = False
    commands = Commands(Pipe(transport, name="script"), 0)
    with pytest.raises(MalformedMessage):
        commands.xfr_block(b"\0\0\0\0", timeout_s=1)
    assert [commands.xfr_block(b"\0\0\0\0", timeout_s=1)[0] for _ in range(5)] == [DATA] * 5
