"""The log of a virtual reader, without secrets.

It hears every message and decides like the host's trace what may be seen: of an exchange that
carries a PIN or a key, the header of the command and SW1 SW2.
"""

from __future__ import annotations

import logging

from ccid.codes import Level
from ccid.iso7816.apdu import is_secret
from ccid.messages import HEADER_LENGTH
from ccid.trace.log import TRAFFIC, describe_message
from ccid.trace.secrets import (
    DATA_BLOCK,
    SECURE,
    SECURE_COMMAND,
    XFR_BLOCK,
    masked,
)
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

    def heard(self, message: bytes) -> None:
        """A command came in."""
        if logger.isEnabledFor(TRAFFIC):
            logger.log(TRAFFIC, "%s <- %s", self.name, describe_message(self._command(message)))

    def said(self, message: bytes) -> None:
        """A reply goes out."""
        if logger.isEnabledFor(TRAFFIC):
            logger.log(TRAFFIC, "%s -> %s", self.name, describe_message(self._reply(message)))

    def _command(self, message: bytes) -> bytes:
        if self.secrets or len(message) < HEADER_LENGTH:
            return message
        kind, slot = message[0], message[5]
        if kind == SECURE:
            self._secret[slot] = SECURE_COMMAND
            return masked(message, SECURE_COMMAND.first_out, 0)
        if kind != XFR_BLOCK:
            return message
        apdu, level = message[HEADER_LENGTH:], int.from_bytes(message[8:10], "little")
        if level in (Level.WHOLE, Level.BEGINS):
            self._secret.pop(slot, None)
            if is_secret(apdu):
                self._secret[slot] = apdu_level(apdu)
                return masked(message, self._secret[slot].first_out, 0)
        visible = self._secret.get(slot)
        return message if visible is None else masked(message, visible.head, 0)

    def _reply(self, message: bytes) -> bytes:
        if self.secrets or len(message) < HEADER_LENGTH or message[0] != DATA_BLOCK:
            return message
        visible = self._secret.get(message[5])
        return message if visible is None else masked(message, visible.head, visible.tail_in)
