"""The readable log: one line for each message, at the level TRAFFIC, which is below DEBUG."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ccid.codec.messages import COMMANDS, MESSAGE_HEADER, REPLIES, parse_event
from ccid.codec.messages.headers import reply_header
from ccid.codes import DIRECTION_IN, CommandStatus, IccStatus, slot_error_text
from ccid.errors import MalformedMessage, TransportTimeout
from ccid.ground.printable_log import TRAFFIC as TRAFFIC
from ccid.ground.printable_log import PrintableFormatter as PrintableFormatter
from ccid.trace.tap import Kind, Sink, Transfer
from ccid.transport import ReaderInfo

logger = logging.getLogger("ccid.traffic")

NAMES = {kind: cls.__name__ for kind, cls in (COMMANDS | REPLIES).items()}
"""By bMessageType: the name of the message."""


_shows_secrets = False


def shows_secrets() -> bool:
    """True while a log is on that does not mask PINs and keys."""
    return _shows_secrets


@contextmanager
def log_to_stderr(secrets: bool = False) -> Iterator[None]:
    """A context in which all traffic is logged to standard error.

    Args:
        secrets: True to log PINs and keys, False to mask them.
    """
    global _shows_secrets
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(TRAFFIC)
    logger.propagate, _shows_secrets = False, secrets
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        _shows_secrets = False


class LogSink(Sink):
    """Writes transfers to the logger ``ccid.traffic``."""

    def begin(self, info: ReaderInfo) -> None:
        """Log the name of the reader."""
        logger.log(TRAFFIC, "== %s", info)

    def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
        """Log a transfer, unless it is a slice of a longer wait that ended without data."""
        if not isinstance(transfer.error, TransportTimeout):
            logger.log(TRAFFIC, "%s", describe(transfer))

    def end(self) -> None:
        """Log the end of the trace."""
        logger.log(TRAFFIC, "== end of trace")


def describe(transfer: Transfer) -> str:
    """The log line of a transfer.

    Args:
        transfer: The transfer; its data are shown as they are.
    """
    arrow = "<-" if transfer.endpoint & DIRECTION_IN else "->"
    line = f"{arrow} {_what(transfer)}"
    if transfer.is_masked:
        line += " (secret, masked)"
    if transfer.error is not None:
        line += f" failed: {transfer.error}"
    return line


def _what(transfer: Transfer) -> str:
    data = transfer.data
    if transfer.kind is Kind.CONTROL and transfer.setup is not None:
        s = transfer.setup
        setup = (
            f"bmRequestType={s.bmRequestType:02X} bRequest={s.bRequest:02X} "
            f"wValue={s.wValue:04X} wIndex={s.wIndex:04X} wLength={s.wLength}"
        )
        return f"control {setup} {_hex(data)}".rstrip()
    if transfer.kind is Kind.INTERRUPT:
        try:
            return f"event {parse_event(data)}"
        except MalformedMessage:
            return f"event {_hex(data)}"
    return describe_message(data)


def describe_message(data: bytes) -> str:
    """The log line of a CCID bulk message (USB CCID rev 1.1, 6.1 and 6.2).

    Args:
        data: The message, or any other bytes.
    """
    if len(data) < MESSAGE_HEADER:
        return f"{len(data)} bytes {_hex(data)}".rstrip()
    kind, _, bSlot, bSeq, bStatus, bError, parameter = reply_header.unpack_from(data)
    name = NAMES.get(kind, f"0x{kind:02X}")
    text = f"{name} slot={bSlot} seq={bSeq}"
    if kind in REPLIES:
        text += f" {IccStatus(bStatus & 3).name} {CommandStatus(bStatus >> 6).name}"
        if bStatus >> 6 == CommandStatus.FAILED:
            text += f" bError={bError:02X} ({slot_error_text(bError)})"
        elif bError:
            text += f" bError={bError:02X}"
        if parameter:
            text += f" byte9={parameter:02X}"
    elif any(data[7:MESSAGE_HEADER]):
        text += f" bytes7-9={_hex(data[7:MESSAGE_HEADER])}"
    return f"{text} {_hex(data[MESSAGE_HEADER:])}".rstrip()


def _hex(data: bytes) -> str:
    return data.hex(" ").upper()
