"""The log of a virtual reader, without secrets: it hears every message and decides like the
host's trace (:mod:`ccid.masking.censor`) what may be seen."""

from __future__ import annotations

import logging

from ccid.masking.censor import Censor
from ccid.masking.exchange_watch import Framing
from ccid.trace.log import TRAFFIC, describe_message

logger = logging.getLogger("ccid.virtual")


class Journal:
    """Logs messages of one reader at level TRAFFIC.

    Args:
        name: Of the reader.
        secrets: Show PINs and keys.
        numbered: Its messages have a bSeq; those of an ICCD have none.
    """

    def __init__(self, name: str, secrets: bool = False, numbered: bool = True) -> None:
        self.name = name
        self.secrets = secrets
        self._censor = Censor(numbered)

    def heard(self, message: bytes, framing: Framing = Framing.APDU) -> None:
        """A command came in; ``framing`` says what its block is, if it has one."""
        if logger.isEnabledFor(TRAFFIC):
            shown = message if self.secrets else self._censor.command(message, (framing,))
            logger.log(TRAFFIC, "%s <- %s", self.name, describe_message(shown))

    def said(self, message: bytes) -> None:
        """A reply goes out."""
        if logger.isEnabledFor(TRAFFIC):
            shown = message if self.secrets else self._censor.reply(message)
            logger.log(TRAFFIC, "%s -> %s", self.name, describe_message(shown))
