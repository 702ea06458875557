"""The codec of the vpcd protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.errors import MalformedMessage
from ccid.virtual.vpcd_messages import (
    MAX_MESSAGE,
    Control,
    MessageStream,
    checked_atr,
    checked_response,
    control,
    control_in,
    frame,
)


@pytest.mark.parametrize(
    ("code", "raw"),
    [
        (Control.POWER_OFF, "00 01 00"),
        (Control.POWER_ON, "00 01 01"),
        (Control.RESET, "00 01 02"),
        (Control.ATR, "00 01 04"),
    ],
)
def test_control_messages(code: Control, raw: str) -> None:
    assert control(code) == bytes.fromhex(raw)
    assert control_in(bytes.fromhex(raw)[2:]) is code


def test_a_command_apdu() -> None:
    assert frame(bytes.fromhex("0084000008")) == bytes.fromhex("0005 0084000008")
    assert control_in(bytes.fromhex("0084000008")) is None
    assert control_in(b"\x00\x01") is None


@pytest.mark.parametrize("code", [3, 5, 0x80, 0xFF])
def test_other_control_codes(code: int) -> None:
    with pytest.raises(MalformedMessage, match=f"0x{code:02X}"):
        control_in(bytes((code,)))


@pytest.mark.parametrize("length", [0, MAX_MESSAGE + 1])
def test_contents_that_no_message_holds(length: int) -> None:
    with pytest.raises(MalformedMessage):
        frame(bytes(length))


def test_the_longest_message() -> None:
    content = bytes(MAX_MESSAGE)
    assert list(MessageStream().feed(frame(content))) == [content]


@pytest.mark.parametrize(
    ("length", "right"), [(0, False), (1, False), (2, True), (33, True), (34, False)]
)
def test_lengths_of_an_atr(length: int, right: bool) -> None:
    atr = bytes(length)
    if right:
        assert checked_atr(atr) == atr
    else:
        with pytest.raises(MalformedMessage):
            checked_atr(atr)


@pytest.mark.parametrize("length", [0, 1])
def test_a_response_without_status_bytes(length: int) -> None:
    with pytest.raises(MalformedMessage):
        checked_response(bytes(length))


def test_an_empty_message_ends_the_stream() -> None:
    stream = MessageStream()
    assert list(stream.feed(frame(b"one"))) == [b"one"]
    with pytest.raises(MalformedMessage, match="empty"):
        list(stream.feed(b"\x00\x00"))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.data())
def test_messages_in_any_pieces(contents: list[bytes], data: st.DataObject) -> None:
    stream = MessageStream()
    got: list[bytes] = []
    raw = b"".join(map(frame, contents))
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        got += stream.feed(raw[:size])
        raw = raw[size:]
    assert got == contents
    assert not stream.is_partial


@given(st.binary(max_size=400))
def test_any_bytes_give_messages_or_a_clear_error(raw: bytes) -> None:
    stream = MessageStream()
    got: list[bytes] = []
    try:
        got += stream.feed(raw)
    except MalformedMessage:
        rest = raw[sum(2 + len(content) for content in got) :]
        assert rest[:2] == b"\x00\x00"
        return
    taken = b"".join(map(frame, got))
    assert raw.startswith(taken)
    assert stream.is_partial == (len(taken) < len(raw))


def test_half_a_message_is_partial() -> None:
    stream = MessageStream()
    assert list(stream.feed(b"\x00")) == []
    assert stream.is_partial
    assert list(stream.feed(b"\x02\x90\x00")) == [b"\x90\x00"]
    assert not stream.is_partial
