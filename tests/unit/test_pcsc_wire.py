"""The service as libpcsclite's messages meet it: each version, each dialect of waiting."""

from __future__ import annotations

import struct

import pytest

from ccid.pcsc.manager.scard_codes import ScardCode
from ccid.pcsc.service.client_messages import Command
from tests.unit.fake_pcsc import ATR, FakeSlot
from tests.unit.pcsc_clients import (
    ARRAY_SIZE,
    Server,
    connect_body,
    request,
    transmit_body,
)

EVENT = struct.Struct("=II")
CANCELLED = ScardCode.E_CANCELLED


def entry(array: bytes, number: int = 0) -> tuple[bytes, int, int, int, bytes, int]:
    """Name, counter, state, sharing, ATR, protocol."""
    name, counter, state, sharing, atr, length, protocol = struct.unpack_from(
        "=128sIIi33s3xII", array, 184 * number
    )
    return name.rstrip(b"\0"), counter, state, sharing, atr[:length], protocol


# Versions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("minor", [2, 3, 4, 5, 6])
def test_each_version_is_answered_by_itself(minor: int) -> None:
    client = Server().client(None)
    assert client.ask(Command.VERSION, 4, minor, 0) == struct.pack("=III", 4, minor, 0)


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ((4, 7), (4, 6, 0)),
        ((4, 1), (4, 6, ScardCode.E_SERVICE_STOPPED)),
        ((3, 4), (4, 6, ScardCode.E_SERVICE_STOPPED)),
    ],
)
def test_other_versions(said: tuple[int, int], answered: tuple[int, ...]) -> None:
    client = Server().client(None)
    assert struct.unpack("=III", client.ask(Command.VERSION, *said, 0)) == answered


def test_a_client_need_not_say_its_version() -> None:
    client = Server().client(None)
    assert client.establish()
    assert len(client.ask(Command.GETSTATE)) == ARRAY_SIZE


# Exchanges, byte for byte -----------------------------------------------------------------------


def test_transmit_as_captured() -> None:
    """The reply has the body with the driver's protocol and the length, and then the response."""
    client = Server().client()
    client.establish()
    card = client.connect()
    body = transmit_body(card, 4, room=300)
    reply = client.ask(Command.TRANSMIT, body=body, data=bytes.fromhex("00a40000"))
    assert reply[:32] == struct.pack("=8I", card, 2, 16, 4, 1, 16, 2, 0)
    assert reply[32:] == bytes.fromhex("9000")


def test_transmit_into_too_small_a_buffer_tells_the_length_and_no_data() -> None:
    client = Server().client()
    client.establish()
    card = client.connect()
    reply = client.ask(Command.TRANSMIT, body=transmit_body(card, 4, room=1), data=b"\0\xa4\0\0")
    assert struct.unpack("=8I", reply)[6:] == (2, ScardCode.E_INSUFFICIENT_BUFFER)


def test_control() -> None:
    client = Server().client()
    client.establish()
    card = client.connect()
    reply = client.ask(Command.CONTROL, card, 0x42000D48, 0, 300, 0, 0)
    assert struct.unpack("=6I", reply[:24]) == (card, 0x42000D48, 0, 300, 7, 0)
    assert reply[24:] == b"control"
    reply = client.ask(Command.CONTROL, card, 0x42000D48, 0, 3, 0, 0)
    assert struct.unpack("=6I", reply)[4:] == (7, ScardCode.E_INSUFFICIENT_BUFFER)


def test_attributes() -> None:
    client = Server().client()
    client.establish()
    card = client.connect()
    form = struct.Struct("=II264sII")
    name = client.ask(Command.GETATTRIB, body=form.pack(card, 0x7FFF0003, b"", 264, 0))
    assert form.unpack(name)[2][:14] == b"Reader 00 00\0\0"
    assert form.unpack(name)[3:] == (13, 0)
    atr = client.ask(Command.GETATTRIB, body=form.pack(card, 0x00090303, b"", 264, 0))
    assert form.unpack(atr)[2][: len(ATR)] == ATR
    internal = client.ask(Command.GETATTRIB, body=form.pack(card, 0x0FB2, b"", 264, 0))
    assert form.unpack(internal)[4] == ScardCode.E_UNSUPPORTED_FEATURE


def test_a_name_of_100_bytes() -> None:
    """libpcsclite before 1.8.4 (4:2) has shorter names in CONNECT and in the array."""
    client = Server().client(2)
    client.establish()
    body = struct.pack("=I100sIIIII", client.context, b"Reader 00 00", 2, 3, 0, 0, 0)
    reply = client.ask(Command.CONNECT, body=body)
    assert len(reply) == 124
    assert struct.unpack("=III", reply[112:])[1:] == (2, 0)
    assert len(client.ask(Command.GETSTATE)) == 16 * 156


def test_the_array() -> None:
    server = Server(FakeSlot(), FakeSlot(None))
    client = server.client()
    client.establish()
    client.connect(1)
    array = client.ask(Command.GETSTATE)
    assert entry(array) == (b"Reader 00 00", 0, 0x34, -1, ATR, 2)
    assert entry(array, 1) == (b"Reader 01 00", 0, 0x02, 0, b"", 0)
    assert entry(array, 2)[0] == b""
    newer = server.client(6)
    assert newer.ask(Command.SIZE) == struct.pack("=i", 16)
    assert newer.ask(Command.ARRAY) == array


# Waiting ------------------------------------------------------------------------------------------


def test_waiting_up_to_4_3() -> None:
    server = Server()
    client = server.client(3)
    client.establish()
    assert client.ask(Command.WAIT, 300, 0) == b""
    server.world.take_out()
    server.settle()
    assert client.take() == EVENT.pack(0, 0)
    assert client.ask(Command.WAIT, 300, 0) == b""
    assert client.ask(Command.STOP, 300, 0) == EVENT.pack(300, 0)
    assert client.ask(Command.STOP, 300, 0) == b""


def test_waiting_in_4_4() -> None:
    server = Server()
    client = server.client(4)
    client.establish()
    assert len(client.ask(Command.WAIT)) == ARRAY_SIZE
    server.world.take_out()
    server.settle()
    assert client.take() == EVENT.pack(0, 0)
    assert entry(client.ask(Command.WAIT))[2] == 0x02
    assert client.ask(Command.STOP) == EVENT.pack(0, 0)
    assert client.ask(Command.STOP) == b""


def test_waiting_in_4_6_no_event_comes_before_the_array() -> None:
    """One that did would be read as the count of entries."""
    server = Server()
    client = server.client(6)
    client.establish()
    assert client.ask(Command.WAIT) == b""
    server.world.take_out()
    server.settle()
    assert client.take() == b""
    assert client.ask(Command.SIZE) == struct.pack("=i", 16)
    reply = client.ask(Command.ARRAY)
    assert reply[:ARRAY_SIZE] == client.ask(Command.ARRAY)
    assert reply[ARRAY_SIZE:] == EVENT.pack(server.core.resources.reader_events, 0)


def test_an_event_that_is_read_for_the_count_of_readers_is_that() -> None:
    server = Server()
    client = server.client(5)
    client.establish()
    assert len(client.ask(Command.WAIT)) == ARRAY_SIZE
    server.world.take_out()
    server.settle()
    event = client.take()
    assert event == client.ask(Command.EVENTS) == EVENT.pack(2, 0)


def test_two_waits_two_events() -> None:
    server = Server()
    client = server.client(3)
    client.establish()
    client.ask(Command.WAIT, 0, 0)
    client.ask(Command.WAIT, 0, 0)
    server.world.take_out()
    server.settle()
    assert client.take() == 2 * EVENT.pack(0, 0)


def test_more_waits_than_any_client_has_end_the_client() -> None:
    client = Server().client(3)
    client.establish()
    client.say(9 * request(Command.WAIT, bytes(8)))
    assert client.session.is_over


def test_cancel_comes_over_another_connection() -> None:
    server = Server()
    client, other = server.client(), server.client(None)
    client.establish()
    client.ask(Command.WAIT)
    assert other.ask(Command.CANCEL, client.context, 0) == EVENT.pack(client.context, 0)
    assert client.take() == EVENT.pack(0, CANCELLED)
    assert client.ask(Command.STOP) == b""


def test_cancel_just_before_the_wait_is_not_lost() -> None:
    server = Server()
    client, other = server.client(), server.client(None)
    client.establish()
    assert other.rv(Command.CANCEL, client.context, 0) == 0
    assert client.ask(Command.WAIT)[ARRAY_SIZE:] == EVENT.pack(0, CANCELLED)
    assert other.rv(Command.CANCEL, client.context, 0) == 0
    server.sleep(1)
    assert len(client.ask(Command.WAIT)) == ARRAY_SIZE  # that was long ago


def test_cancel_of_nothing() -> None:
    other = Server().client(None)
    assert other.rv(Command.CANCEL, 12345, 0) == ScardCode.E_INVALID_HANDLE
    assert other.rv(Command.CANCEL, 0, 0) == ScardCode.E_INVALID_HANDLE


# Contexts and handles ---------------------------------------------------------------------------


def test_a_context_ends_and_another_begins() -> None:
    client = Server().client()
    assert client.rv(Command.RELEASE, 1, 0) == ScardCode.E_INVALID_HANDLE
    first = client.establish()
    assert client.rv(Command.RELEASE, first + 1, 0) == ScardCode.E_INVALID_VALUE
    assert client.rv(Command.RELEASE, first, 0) == 0
    assert client.rv(Command.RELEASE, first, 0) == ScardCode.E_INVALID_HANDLE
    assert client.establish() != first
    assert client.rv(Command.ESTABLISH, 4, 0, 0) == ScardCode.E_INVALID_VALUE


def test_the_handle_of_another_is_none() -> None:
    server = Server()
    client, other = server.client(), server.client()
    client.establish()
    other.establish()
    card = client.connect()
    assert other.rv(Command.STATUS, card, 0) == ScardCode.E_INVALID_HANDLE
    assert other.rv(Command.DISCONNECT, card, 1, 0) == ScardCode.E_INVALID_HANDLE
    assert client.rv(Command.STATUS, card, 0) == 0
    body = connect_body(client.context, "Reader 00 00", 2)
    reply = other.ask(Command.CONNECT, body=body)
    assert struct.unpack("=I", reply[-4:])[0] == ScardCode.E_INVALID_VALUE


@pytest.mark.parametrize("command", [Command.STATUS, Command.BEGIN])
def test_without_a_context_there_is_no_handle(command: Command) -> None:
    assert Server().client().rv(command, 5, 0) == ScardCode.E_INVALID_HANDLE


def test_a_client_that_is_gone_leaves_its_card_reset_and_its_transaction_ended() -> None:
    server = Server()
    client, other = server.client(), server.client()
    client.establish()
    other.establish()
    card, others = client.connect(), other.connect()
    assert client.rv(Command.BEGIN, card, 0) == 0
    other.say(request(Command.BEGIN, struct.pack("=II", others, 0)))
    assert other.take() == b""
    client.hang_up()
    assert struct.unpack("=II", other.take())[1] == ScardCode.W_RESET_CARD
    assert server.core.resources.contexts.keys() == {other.context}


# Transactions -----------------------------------------------------------------------------------


def test_who_waits_for_a_transaction_goes_on_as_soon_as_it_ends() -> None:
    server = Server()
    client, other = server.client(), server.client()
    client.establish()
    other.establish()
    card, others = client.connect(), other.connect()
    client.rv(Command.BEGIN, card, 0)
    other.say(request(Command.BEGIN, struct.pack("=II", others, 0)))
    server.sleep(0.2)
    assert other.take() == b""
    assert client.rv(Command.END, card, 0, 0) == 0
    assert other.take() == struct.pack("=II", others, 0)


def test_who_waits_long_is_told_to_ask_again() -> None:
    """So that libpcsclite lets other threads of the client use the context."""
    server = Server()
    client, other = server.client(), server.client()
    client.establish()
    other.establish()
    card, others = client.connect(), other.connect()
    client.rv(Command.BEGIN, card, 0)
    other.say(request(Command.STATUS, struct.pack("=II", others, 0)))
    server.sleep(0.3)
    assert struct.unpack("=II", other.take())[1] == ScardCode.E_SHARING_VIOLATION


def test_the_own_transaction_is_not_waited_for() -> None:
    server = Server()
    client = server.client()
    client.establish()
    card, second = client.connect(), client.connect()
    client.rv(Command.BEGIN, card, 0)
    assert client.rv(Command.BEGIN, second, 0) == ScardCode.E_SHARING_VIOLATION
    assert client.rv(Command.RECONNECT, second, 2, 3, 0, 0, 0) == ScardCode.E_SHARING_VIOLATION
    assert client.connect()  # pcscd would never answer this


def test_connect_waits_for_a_transaction_without_limit() -> None:
    server = Server()
    client, other = server.client(), server.client()
    client.establish()
    other.establish()
    card = client.connect()
    client.rv(Command.BEGIN, card, 0)
    other.say(request(Command.CONNECT, connect_body(other.context, "Reader 00 00", 2)))
    server.sleep(60)
    assert other.take() == b""
    client.rv(Command.END, card, 0, 0)
    assert struct.unpack("=I", other.take()[-4:])[0] == 0


# What no client says ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 3, 0x0C, 0x0E, 0x18, 0xFFFFFFFF])
def test_an_unknown_command_ends_the_client(number: int) -> None:
    client = Server().client()
    client.say(request(number))
    assert client.session.is_over


@pytest.mark.parametrize("command", list(Command))
def test_a_wrong_size_ends_the_client(command: Command) -> None:
    client = Server().client()
    client.say(request(command, bytes(7)))
    assert client.session.is_over


def test_too_much_data_ends_the_client() -> None:
    client = Server().client()
    client.say(request(Command.TRANSMIT, transmit_body(1, 65549)))
    assert client.session.is_over


def test_pieces_and_heaps() -> None:
    """Requests come in pieces of three bytes, or several at once."""
    client = Server().client()
    client.establish()
    card = client.connect()
    whole = request(Command.TRANSMIT, transmit_body(card, 4), b"\0\xa4\0\0")
    for start in range(0, len(whole), 3):
        client.say(whole[start : start + 3])
    one = client.take()
    assert len(one) == 34
    client.say(5 * whole)
    assert client.take() == 5 * one


def test_a_name_that_is_no_text_is_an_unknown_reader() -> None:
    client = Server().client()
    client.establish()
    body = struct.pack("=I128sIIIII", client.context, 128 * b"\xff", 2, 3, 0, 0, 0)
    reply = client.ask(Command.CONNECT, body=body)
    assert struct.unpack("=I", reply[-4:])[0] == ScardCode.E_UNKNOWN_READER


def test_an_event_of_a_context_that_is_released_is_not_told() -> None:
    server = Server()
    client = server.client(6)
    client.establish()
    client.ask(Command.WAIT)
    server.world.take_out()
    server.settle()
    assert client.rv(Command.RELEASE, client.context, 0) == 0
    assert len(client.ask(Command.ESTABLISH, 2, 0, 0)) == 12


def test_a_wait_without_a_context_ends_with_the_next_context_or_client() -> None:
    for ends in ("context", "client"):
        server = Server()
        client = server.client(3)
        client.ask(Command.WAIT, 0, 0)
        if ends == "context":
            client.establish()
        else:
            client.hang_up()
        assert not server.core._watchers
        assert client.take() == b""
