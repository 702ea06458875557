"""The log of a virtual reader, without secrets.

It hears every message and decides like the host's trace what may be seen: of an exchange that
carries a PIN or a key, the header of the command and SW1 SW2. What passes on the contacts, T=1
blocks and single characters, it follows by :mod:`ccid.virtual.watch`.
"""

from __future__ import annotations

import logging

from ccid.codes import CommandStatus, Level
from ccid.iso7816.apdu import is_secret
from ccid.messages import HEADER_LENGTH, PC_to_RDR_IccPowerOn
from ccid.trace.log import TRAFFIC, describe_message
from ccid.trace.secrets import (
    DATA_BLOCK,
    SECURE,
    SECURE_COMMAND,
    XFR_BLOCK,
    masked,
)
from ccid.virtual.watch import Framing, T0Watch, T1Watch
from ccid.visible import Visible, apdu_level

logger = logging.getLogger("ccid.virtual")


class Journal:
    """Logs messages of one reader at level TRAFFIC.

    Args:
        name: Of the reader.
        secrets: Show PINs and keys.
    """

    def __init__(self, name: str, secrets: bool = False) -> None:
        self.name = name
        self.secrets = secrets
        self._secret: dict[int, Visible] = {}
        self._watches: dict[tuple[int, Framing], T0Watch | T1Watch] = {}

    def heard(self, message: bytes, framing: Framing = Framing.APDU) -> None:
        """A command came in; ``framing`` says what its block is, if it has one."""
        if logger.isEnabledFor(TRAFFIC):
            shown = describe_message(self._command(message, framing))
            logger.log(TRAFFIC, "%s <- %s", self.name, shown)

    def said(self, message: bytes, framing: Framing = Framing.APDU) -> None:
        """A reply goes out."""
        if logger.isEnabledFor(TRAFFIC):
            shown = describe_message(self._reply(message, framing))
            logger.log(TRAFFIC, "%s -> %s", self.name, shown)

    def _watch(self, slot: int, framing: Framing) -> T0Watch | T1Watch:
        """Who follows the contacts of a slot, from the card's reset on."""
        made = self._watches.get((slot, framing))
        if made is None:
            made = T1Watch() if framing is Framing.T1 else T0Watch()
            self._watches[slot, framing] = made
        return made

    def _command(self, message: bytes, framing: Framing) -> bytes:
        if self.secrets or len(message) < HEADER_LENGTH:
            return message
        kind, slot = message[0], message[5]
        if kind == PC_to_RDR_IccPowerOn.bMessageType:
            for of in Framing:
                self._watches.pop((slot, of), None)
        if kind == SECURE:
            self._secret[slot] = SECURE_COMMAND
            return masked(message, SECURE_COMMAND.first_out, 0)
        if kind != XFR_BLOCK:
            return message
        if framing is not Framing.APDU:
            shown = self._watch(slot, framing).out(message[HEADER_LENGTH:])
            return message[:HEADER_LENGTH] + shown
        apdu, level = message[HEADER_LENGTH:], int.from_bytes(message[8:10], "little")
        if level in (Level.WHOLE, Level.BEGINS):
            self._secret.pop(slot, None)
            if is_secret(apdu):
                self._secret[slot] = apdu_level(apdu)
                return masked(message, self._secret[slot].first_out, 0)
        visible = self._secret.get(slot)
        return message if visible is None else masked(message, visible.head, 0)

    def _reply(self, message: bytes, framing: Framing) -> bytes:
        if self.secrets or len(message) < HEADER_LENGTH or message[0] != DATA_BLOCK:
            return message
        if framing is not Framing.APDU:
            watch = self._watch(message[5], framing)
            if message[7] >> 6 == CommandStatus.FAILED:
                watch.failed()
            return message[:HEADER_LENGTH] + watch.back(message[HEADER_LENGTH:])
        visible = self._secret.get(message[5])
        return message if visible is None else masked(message, visible.head, visible.tail_in)
