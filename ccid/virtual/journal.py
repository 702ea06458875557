"""The log of a virtual reader, without secrets: :mod:`ccid.masking.censor` masks every message, as
in the trace of the host."""

from __future__ import annotations

import logging

from ccid.masking.censor import Censor
from ccid.masking.exchange_watch import Framing
from ccid.trace.log import TRAFFIC, describe_message

logger = logging.getLogger("ccid.virtual")


class Journal:
    """Logs messages of one reader at level TRAFFIC.

    Args:
        name: The reader's name.
        secrets: Show PINs and keys.
        numbered: The messages have a bSeq; messages of an ICCD have none.
    """

    def __init__(self, name: str, secrets: bool = False, numbered: bool = True) -> None:
        self.name = name
        self.secrets = secrets
        self._censor = Censor(numbered)

    def heard(self, message: bytes, framing: Framing = Framing.APDU) -> None:
        """Log a command; ``framing`` is the framing of the command's block, if there is one."""
        if logger.isEnabledFor(TRAFFIC):
            shown = message if self.secrets else self._censor.command(message, (framing,))
            logger.log(TRAFFIC, "%s <- %s", self.name, describe_message(shown))

    def said(self, message: bytes) -> None:
        """Log a reply."""
        if logger.isEnabledFor(TRAFFIC):
            shown = message if self.secrets else self._censor.reply(message)
            logger.log(TRAFFIC, "%s -> %s", self.name, describe_message(shown))
