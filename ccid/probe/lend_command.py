"""``ccid-probe lend``: lends the card in a reader to a vpcd elsewhere.

vpcd is the virtual reader of the vsmartcard project, a driver of pcscd. This command is the card
side of its protocol (:mod:`ccid.virtual.vpcd_messages`): the command connects, and answers control
messages and command APDUs with the card. The card stays lent until the other side closes the
connection, the card is removed, or Ctrl-C.
"""

from __future__ import annotations

import argparse
import selectors
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Protocol

from ccid.codes import IccStatus
from ccid.codes import Protocol as CardProtocol
from ccid.device.card import Card
from ccid.device.slot import Slot
from ccid.errors import CardRemoved, InvalidApdu, MalformedMessage, UnsupportedByReader
from ccid.ground.host_port import shown
from ccid.probe.reader_choice import card_slot, note, opened, print_json, protocol_of
from ccid.virtual.vpcd_messages import MAX_MESSAGE, Control, MessageStream, control_in, frame
from ccid.virtual.vpcd_sockets import CHUNK, receive, send_at_once

CONNECT_LIMIT_S = 10.0
PARTIAL_LIMIT_S = 30.0
"""A message that stays incomplete, or an answer not taken, for this time ends the loan."""
WRONG_LENGTH, NO_DIAGNOSIS = b"\x67\x00", b"\x6f\x00"
"""SW1 SW2 for an APDU that the reader cannot send, and for a response that no message can hold."""


class LentCard(Protocol):
    """What the card side of the protocol does with its card."""

    def power_off(self) -> None:
        """Power the card off."""

    def power_on(self) -> None:
        """Power the card on."""

    def reset(self) -> None:
        """Reset the card."""

    def atr(self) -> bytes:
        """The ATR. Raises CardRemoved without a card."""

    def transmit(self, apdu: bytes) -> bytes:
        """Send a command APDU; return the response APDU."""


class CardSide:
    """The card side of the vpcd protocol: answers messages with a card.

    Args:
        card: The card.

    Attributes:
        apdus: Number of command APDUs so far.
    """

    def __init__(self, card: LentCard) -> None:
        self._card = card
        self.apdus = 0

    def answer(self, content: bytes) -> bytes:
        """Carry out one message of the reader side; return the bytes to send, empty for none.

        Raises:
            MalformedMessage: The message is neither a control message nor a command APDU.
            CcidError: The card or the reader failed.
        """
        match control_in(content):
            case None:
                return self._apdu(content)
            case Control.ATR:
                return frame(self._card.atr())
            case Control.POWER_ON:
                self._card.power_on()
            case Control.POWER_OFF:
                self._card.power_off()
            case Control.RESET:
                self._card.reset()
        return b""

    def _apdu(self, apdu: bytes) -> bytes:
        self.apdus += 1
        try:
            response = self._card.transmit(apdu)
        except (InvalidApdu, UnsupportedByReader):
            response = WRONG_LENGTH
        return frame(response if len(response) <= MAX_MESSAGE else NO_DIAGNOSIS)


class SlotCard:
    """The card in a slot of a reader, as :class:`LentCard`.

    Args:
        slot: The slot.
        protocol: The protocol to insist on; None for any.

    Raises:
        CcidError: There is no card, or the card does not work.
    """

    def __init__(self, slot: Slot, protocol: CardProtocol | None = None) -> None:
        self._slot = slot
        self._protocol = protocol
        self._card: Card | None = None
        self._is_fresh = True
        self._atr = b""
        self._connected()

    def _connected(self) -> Card:
        """The card with power."""
        if self._card is None:
            self._card = self._slot.connect(self._protocol)
            self._atr = self._card.atr.raw
            self._is_fresh = True
        return self._card

    def power_off(self) -> None:
        """Power the card off."""
        if self._card is not None:
            self._card.disconnect()
            self._card = None

    def power_on(self) -> None:
        """Power the card on; reset a card that has power and has been used."""
        self._connected()
        if not self._is_fresh:
            self.reset()

    def reset(self) -> None:
        """Reset the card."""
        self._atr = self._connected().reset().raw
        self._is_fresh = True

    def atr(self) -> bytes:
        """The ATR of the last power-up or reset. Raises CardRemoved without a card."""
        if self._slot.status() is IccStatus.ABSENT:
            name, index = self._slot.reader.name, self._slot.index
            raise CardRemoved(f"{name}: the card was taken out of slot {index}", reader=name)
        return self._atr

    def transmit(self, apdu: bytes) -> bytes:
        """Send a command APDU; return the response APDU."""
        card = self._connected()
        self._is_fresh = False
        return card.transmit(apdu)


def lend(
    sock: socket.socket, side: CardSide, changed: socket.socket, look: Callable[[], object]
) -> None:
    """Answer the other side until it closes the connection.

    Args:
        sock: The connection.
        side: Answers its messages.
        changed: Gets a byte when the card may have been removed.
        look: Called then; raises CardRemoved.

    Raises:
        CcidError: The card or the reader failed, or the other side broke the protocol.
        OSError: The connection broke, or the other side takes no answer.
    """
    stream = MessageStream()
    sock.settimeout(PARTIAL_LIMIT_S)
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        selector.register(changed, selectors.EVENT_READ)
        while True:
            ready = selector.select(PARTIAL_LIMIT_S if stream.is_partial else None)
            if not ready and stream.is_partial:
                raise MalformedMessage("vpcd: a message breaks off")
            for key, _ in ready:
                if key.fileobj is changed:
                    changed.recv(CHUNK)
                    look()
                    continue
                data = receive(sock)
                if not data:
                    return
                for content in stream.feed(data):
                    answer = side.answer(content)
                    if answer:
                        sock.sendall(answer)


class _Alarm:
    """Called with every notification of the reader: wakes the loop of :func:`lend`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __call__(self, slots: object) -> None:
        with suppress(OSError):  # a full buffer wakes the loop anyway; a closed one needs not
            self._sock.send(b"\0")


def run(options: argparse.Namespace) -> int:
    """Lend the card until the other side closes the connection."""
    host, port = options.to
    there = shown(host, port)
    with opened(options) as reader, ExitStack() as stack:
        card = SlotCard(card_slot(reader, options), protocol_of(options))
        stack.callback(card.power_off)
        try:
            sock = stack.enter_context(socket.create_connection((host, port), CONNECT_LIMIT_S))
        except OSError as error:
            note(f"lend: no connection to {there}: {error.strerror or error}")
            return 1
        send_at_once(sock)
        changed, alarm = socket.socketpair()
        for end in (changed, alarm):
            stack.callback(end.close)
            end.setblocking(False)
        stack.callback(reader.listen(_Alarm(alarm)))
        side = CardSide(card)
        note(f"the card in {reader.name} is lent to {there}; Ctrl-C ends that")
        try:
            lend(sock, side, changed, card.atr)
        except OSError as error:
            note(f"lend: {there}: {error.strerror or error}")
            return 1
        note(f"{there} closed the connection after {side.apdus} APDUs")
        if options.json:
            print_json(
                "lend",
                name=reader.name,
                path=reader.info.path,
                slot=options.slot,
                to=there,
                apdus=side.apdus,
            )
    return 0
