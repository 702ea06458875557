"""APDUs of any length in as many blocks as they need: short and extended APDU level.

wLevelParameter tells the reader which part of the command APDU a block is, bChainParameter tells
the host which part of the response (USB CCID rev 1.1, 6.1.4 and 6.2.1).
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from ccid.codec.messages import MESSAGE_HEADER
from ccid.codes import Chain, Level
from ccid.errors import (
    CardAbsent,
    CardMute,
    CommandFailed,
    InvalidApdu,
    MalformedMessage,
    ProtocolError,
    ReaderUnsupported,
    TransportError,
    UnsupportedByReader,
)
from ccid.iso7816.apdu import (
    APDU_HEADER,
    MAX_EXTENDED,
    MAX_RESPONSE,
    SW_LENGTH,
    Bytes,
    octets,
)
from ccid.link.reply_errors import chain_parameter
from ccid.link.slot_commands import SlotCommands
from ccid.session.exchange.agreement import Agreement

ENDED_BY_READER = (CommandFailed, CardAbsent, CardMute, UnsupportedByReader)
"""Errors of a reader that has ended the chain itself."""


class Chained:
    """Splits a command APDU to the reader's message length and joins the response.

    Args:
        commands: The slot's commands.
        room: Bytes a message has for a block: dwMaxCCIDMessageLength - 10.
        agreement: With the card.

    Raises:
        ReaderUnsupported: A message has no room for any data.
    """

    def __init__(self, commands: SlotCommands, room: int, agreement: Agreement) -> None:
        if room < 1:
            raise ReaderUnsupported(
                f"{commands.name}: dwMaxCCIDMessageLength {room + MESSAGE_HEADER} leaves no room",
                reader=commands.name,
            )
        self.commands = commands
        self.room = min(room, MAX_EXTENDED)
        self.agreement = agreement
        self.way = commands.apdu_way(agreement.patience_s, self._rest, agreement.session)
        self._is_broken_off = False
        """The host broke a chain off, and the reader has not been told yet."""

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu``, up to 65,544 bytes.

        Raises:
            InvalidApdu: Fewer than 4 bytes, or too many.
            ProtocolError: The reader loses its place in the chain.
        """
        try:
            if APDU_HEADER <= len(apdu) <= self.room:
                if self._is_broken_off:
                    self._abort()
                return self.way.transmit(apdu)
        except (TypeError, ValueError):
            octets(apdu)  # it has no length
            raise
        apdu = octets(apdu)
        if not APDU_HEADER <= len(apdu) <= MAX_EXTENDED:
            raise InvalidApdu(
                f"{len(apdu)} bytes; a command APDU has {APDU_HEADER} to {MAX_EXTENDED}",
                reader=self.commands.name,
                slot=self.commands.slot,
            )
        response = self.commands.perform(partial(self._chain, apdu), session=self.agreement.session)
        if len(response) < SW_LENGTH:
            raise self._lost(f"a response of {len(response)} bytes")
        return response

    def _chain(self, apdu: bytes) -> bytes:
        """A command in several blocks, and its response."""
        if self._is_broken_off:
            self._abort()
        try:
            return self._receive(*self._send(apdu))
        except ENDED_BY_READER:
            raise
        except BaseException:  # a time-out, a cancellation, an exception of a signal handler
            self._is_broken_off = True
            raise

    def _rest(self, reply: bytes, parameter: int) -> bytes:
        """The response that begins with ``reply``, the answer to a whole command."""
        try:
            return self._receive(reply, parameter)
        except ENDED_BY_READER:
            raise
        except BaseException:  # a time-out, a cancellation, an exception of a signal handler
            self._is_broken_off = True
            raise

    def _abort(self) -> None:
        """Tell the reader that the chain is over. A reader without ABORT refuses, or is busy."""
        with suppress(TransportError, ProtocolError, MalformedMessage):
            self.commands.abort()
        self._is_broken_off = False

    def _send(self, apdu: Bytes) -> tuple[bytes, int]:
        """All blocks of the command; returns the reply to the last and its bChainParameter."""
        xfr_block, timeout_s = self.commands.xfr_block, self.agreement.timeout_s()
        starts = range(0, len(apdu), self.room)
        for start in starts[:-1]:
            level = Level.BEGINS if start == 0 else Level.CONTINUES
            block = apdu[start : start + self.room]
            reply, parameter = xfr_block(block, timeout_s=timeout_s, wLevelParameter=level)
            if reply or parameter not in (Chain.COMMAND_EXPECTED, Chain.WHOLE):
                raise self._lost(
                    f"{len(reply)} bytes and bChainParameter 0x{parameter:02X} in answer to a "
                    f"block that the command continues after"
                )
        last = apdu[starts[-1] :]
        return xfr_block(last, timeout_s=timeout_s, wLevelParameter=Level.ENDS)

    def _receive(self, reply: bytes, parameter: int) -> bytes:
        """The response that begins with ``reply``, to its end."""
        xfr_block, timeout_s = self.commands.xfr_block, self.agreement.timeout_s()
        response = bytearray(reply)
        while chain_parameter(parameter) not in (Chain.WHOLE, Chain.ENDS):
            reply, parameter = xfr_block(
                b"", timeout_s=timeout_s, wLevelParameter=Level.CONTINUE_RESPONSE
            )
            response += reply
            if len(response) > MAX_RESPONSE:
                raise self._lost(f"a response of more than {MAX_RESPONSE} bytes")
            if not reply and parameter not in (Chain.WHOLE, Chain.ENDS):
                raise self._lost("an empty block in the middle of a response")
        return bytes(response)

    def _lost(self, what: str) -> ProtocolError:
        self.commands.give_up()
        return ProtocolError(
            f"{self.commands.name}: slot {self.commands.slot}: {what}",
            may_have_executed=True,
            reader=self.commands.name,
            slot=self.commands.slot,
        )
