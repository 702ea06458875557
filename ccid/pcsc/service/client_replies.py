"""The replies to requests of libpcsclite: the request's body, with results filled in; pure."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ccid.pcsc.manager.scard_codes import ScardCode
from ccid.pcsc.service.client_messages import ATTRIBUTE, SIX, THREE, TRANSMIT

if TYPE_CHECKING:
    from ccid.pcsc.service.client_session import ClientCall


def u32(code: int) -> bytes:
    """A number, as the protocol has it."""
    return int(code).to_bytes(4, sys.byteorder)


def transmitted(fields: tuple[int, ...], response: bytes, protocol: int, code: ScardCode) -> bytes:
    """The reply to TRANSMIT.

    Args:
        fields: Of the request's body.
        response: The response APDU.
        protocol: As drivers number it.
        code: How it ended.
    """
    card, sent_as, header, sent, got, got_header, room, _ = fields
    length = len(response)
    if code is ScardCode.S_SUCCESS:
        if length > room:
            code, response = ScardCode.E_INSUFFICIENT_BUFFER, b""
        else:
            got = protocol
    return TRANSMIT.pack(card, sent_as, header, sent, got, got_header, length, code) + response


class Replies:
    """Makes the reply to one request: its body, with results filled in.

    Args:
        body: Of the request.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body

    @staticmethod
    def establish(call: ClientCall) -> bytes:
        """The session has a context from now on."""
        scope = call.arguments[0]
        if call.code is not ScardCode.S_SUCCESS:
            return THREE.pack(scope, 0, call.code)
        call.session.context = call.result
        return THREE.pack(scope, call.result.number, ScardCode.S_SUCCESS)

    def plain(self, call: ClientCall) -> bytes:
        """Nothing but the code."""
        assert call.code is not None
        return self._body[:-4] + u32(call.code)

    two = plain

    def connect(self, call: ClientCall) -> bytes:
        """Handle and active protocol."""
        assert call.code is not None
        number, protocol = call.result or (0, 0)
        return self.connected(number, int(protocol), call.code)

    def connected(self, number: int, protocol: int, code: ScardCode) -> bytes:
        """The same, by values."""
        return self._body[:-12] + u32(number) + u32(protocol) + u32(code)

    def reconnect(self, call: ClientCall) -> bytes:
        """The active protocol."""
        assert call.code is not None
        return self._body[:-8] + u32(call.result or 0) + u32(call.code)

    def transmit(self, call: ClientCall) -> bytes:
        """The response."""
        assert call.code is not None
        response, protocol = call.result or (b"", 0)
        return self.transmitted(response, protocol, call.code)

    def transmitted(self, response: bytes, protocol: int, code: ScardCode) -> bytes:
        """The same, by values; no response where the client has no room for it."""
        return transmitted(TRANSMIT.unpack(self._body), response, protocol, code)

    def control(self, call: ClientCall) -> bytes:
        """The answer."""
        assert call.code is not None
        return self.controlled(call.result or b"", call.code)

    def controlled(self, answer: bytes, code: ScardCode) -> bytes:
        """The same, by values."""
        number, control, sent, room, _, _ = SIX.unpack(self._body)
        length = len(answer)
        if code is ScardCode.S_SUCCESS and length > room:
            code, answer = ScardCode.E_INSUFFICIENT_BUFFER, b""
        return SIX.pack(number, control, sent, room, length, code) + answer

    def get_attribute(self, call: ClientCall) -> bytes:
        """The value of an attribute."""
        number, attribute, data, length, _ = ATTRIBUTE.unpack(self._body)
        assert call.code is not None
        code, value = call.code, call.result or b""
        if code is ScardCode.S_SUCCESS and len(value) > length:
            code = ScardCode.E_INSUFFICIENT_BUFFER
        if code is ScardCode.S_SUCCESS:
            return ATTRIBUTE.pack(number, attribute, value, len(value), code)
        return ATTRIBUTE.pack(number, attribute, data, length, code)
