"""Log lines that are safe to show, and the level of USB traffic in logs. Pure."""

from __future__ import annotations

import logging

from ccid.ground.safe_text import printable, printable_lines

TRAFFIC = 5
"""Level of the logger ``ccid.traffic``."""
logging.addLevelName(TRAFFIC, "TRAFFIC")


class PrintableFormatter(logging.Formatter):
    """A formatter that escapes control characters, so that text of a device cannot control the
    terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The message of ``record``, without control characters."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """The text of ``record``, with a traceback if there is one, without control characters."""
        return printable_lines(super().format(record))
