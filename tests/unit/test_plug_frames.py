"""Frames between the plug and its helper, received from a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from ccid.pcsc.plug.frames import (
    BUFFER_SIZE,
    REPLY,
    REQUEST,
    Kind,
    Operation,
    Request,
    Requests,
    reply,
)

DATA = bytes(range(256)) * 8
FRAME = REQUEST.pack(Operation.TRANSMIT, 1, 258, len(DATA)) + DATA
WANTED: Request = (7, 1, 258, DATA)

Ends = tuple[socket.socket, socket.socket]


def pair(kind: int) -> Iterator[Ends]:
    plug, helper = socket.socketpair(socket.AF_UNIX, kind)
    with plug, helper:
        yield plug, helper


@pytest.fixture
def messages() -> Iterator[Ends]:
    """Request sockets as on Linux: one frame is one message."""
    yield from pair(socket.SOCK_SEQPACKET)


@pytest.fixture
def stream() -> Iterator[Ends]:
    """Request sockets as on macOS: a stream."""
    yield from pair(socket.SOCK_STREAM)


def test_one_message_is_one_request(messages: Ends) -> None:
    plug, helper = messages
    requests = Requests(helper)
    for count in (len(DATA), 1, 0):
        plug.send(REQUEST.pack(Operation.TRANSMIT, 1, 258, count) + DATA[:count])
    assert requests.receive() == WANTED
    assert requests.receive() == (7, 1, 258, DATA[:1])
    assert requests.receive() == (7, 1, 258, b"")
    plug.close()
    assert requests.receive() is None


@pytest.mark.parametrize(
    "broken",
    [b"a", FRAME[:15], FRAME[:-1], FRAME + b"a", REQUEST.pack(7, 0, 0, 0xFFFF_FFFF),
     REQUEST.pack(7, 0, 0, 0) + b"a"],
)  # fmt: skip
def test_a_message_that_is_no_request(messages: Ends, broken: bytes) -> None:
    """The next message is not taken for the rest of the broken message."""
    plug, helper = messages
    requests = Requests(helper)
    plug.send(broken)
    plug.send(FRAME)
    with pytest.raises(ValueError, match="request"):
        requests.receive()


def test_data_outlive_the_next_request(messages: Ends) -> None:
    plug, helper = messages
    requests = Requests(helper)
    plug.send(FRAME)
    plug.send(REQUEST.pack(Operation.TRANSMIT, 0, 0, 4) + b"next")
    first, second = requests.receive(), requests.receive()
    assert first == WANTED
    assert second is not None
    assert second[3] == b"next"


@pytest.mark.parametrize("cut", [1, 15, 16, 17, len(FRAME) - 1])
def test_a_request_in_pieces(stream: Ends, cut: int) -> None:
    plug, helper = stream
    requests = Requests(helper)
    plug.send(FRAME[:cut])
    later = threading.Timer(0.05, plug.sendall, [FRAME[cut:]])
    later.start()
    assert requests.receive() == WANTED
    later.join()


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 17, len(FRAME) - 1])
def test_the_plug_hangs_up_in_the_middle(stream: Ends, cut: int) -> None:
    plug, helper = stream
    plug.sendall(FRAME[:cut])
    plug.close()
    assert Requests(helper).receive() is None


def test_a_request_that_is_too_long(stream: Ends) -> None:
    plug, helper = stream
    plug.sendall(REQUEST.pack(Operation.TRANSMIT, 1, 258, BUFFER_SIZE - REQUEST.size + 1))
    with pytest.raises(ValueError, match="a request of"):
        Requests(helper).receive()


def test_a_reply() -> None:
    assert reply(618) == REPLY.pack(Kind.REPLY, 618, 0)
    assert reply(0, b"\x90\0") == REPLY.pack(Kind.REPLY, 0, 2) + b"\x90\0"
