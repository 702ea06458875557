"""What a client says while its socket is lent: TRANSMITs, one after the other; pure.

Theory of operation. A program mostly sends one APDU after the other. So the socket of a client that
does is lent to a thread of its own (:mod:`ccid.pcsc.service.lent_sockets`), which reads a request,
exchanges the APDU and writes the reply: no other thread is woken meanwhile. All that is not an
APDU which can be exchanged at once ends that, and is left to the client's
:class:`~ccid.pcsc.service.client_session.ClientSession`, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ccid.pcsc.manager.scard_codes import ScardCode
from ccid.pcsc.service.client_messages import HEADER, MAX_DATA, TRANSMIT, Command
from ccid.pcsc.service.client_replies import transmitted

D = TypeVar("D")

TRANSMIT_HEADER = HEADER.pack(TRANSMIT.size, Command.TRANSMIT)
"""What each TRANSMIT begins with."""
START = HEADER.size + TRANSMIT.size
"""The APDU is behind this."""


@dataclass(slots=True)
class LentSession(Generic[D]):
    """What a client says and is answered while its socket is lent.

    Attributes:
        transmit: Exchanges an APDU (the handle's number, the protocol of the send header, the
            APDU): the response and the protocol as drivers number it; None where that cannot be
            done at once, and nothing was sent; anything else where there is more to tell.
        unheard: What the client said and was not carried out.
        is_used: An APDU was exchanged.
        is_over: Somebody else has to go on.
        is_refused: ``unheard`` begins with a TRANSMIT that could not be carried out at once.
        body: Of the TRANSMIT of which there is more to tell; it is not in ``unheard``.
        done: What there is to tell of it.
    """

    transmit: Callable[[int, int, bytes], tuple[bytes, int] | D | None]
    unheard: bytes = field(default=b"", repr=False)
    is_used: bool = False
    is_over: bool = False
    is_refused: bool = False
    body: bytes = field(default=b"", repr=False)
    done: D | None = None

    def received(self, data: bytes) -> bytes:
        """Carry out the first request, if it is complete.

        Args:
            data: What came from the client; nothing, to go on with what is :attr:`unheard`.

        Returns:
            The reply; empty if there is none.
        """
        if self.unheard:
            data = self.unheard + data
        self.unheard = data
        if data[: HEADER.size] != TRANSMIT_HEADER:
            self.is_over = not TRANSMIT_HEADER.startswith(data)
            return b""
        if len(data) < START:
            return b""
        fields = TRANSMIT.unpack_from(data, HEADER.size)
        end = START + fields[3]
        if len(data) < end:
            self.is_over = fields[3] > MAX_DATA
            return b""
        done = self.transmit(fields[0], fields[1], data[START:end])
        if isinstance(done, tuple):
            self.unheard, self.is_used = data[end:], True
            return transmitted(fields, done[0], done[1], ScardCode.S_SUCCESS)
        self.is_over = True
        if done is None:
            self.is_refused = True
        else:
            self.unheard, self.is_used = data[end:], True
            self.body, self.done = data[HEADER.size : START], done
        return b""
