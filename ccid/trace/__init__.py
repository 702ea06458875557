"""Every USB message, written down: pcapng for Wireshark, text for people.

A trace sits between the command layer and the transport (:class:`~.tap.Tap`), so it sees what
really goes over the wire, and costs nothing when there is none: then there is no tap.

PINs and keys do not get into it. The tap follows the messages and sees which exchanges are secret
(:mod:`~.secrets`); it masks the data, and the check bytes from which data could be reckoned back,
in every block of them.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from ccid.errors import CcidError
from ccid.trace.log import TRAFFIC, LogSink, PrintableFormatter
from ccid.trace.log import logger as traffic
from ccid.trace.pcapng import PcapngSink
from ccid.trace.tap import Sink, Tap, logger
from ccid.trace.watch import Framing, framings

if TYPE_CHECKING:
    from ccid.reader import Reader

__all__ = ["TRAFFIC", "LogSink", "PcapngSink", "Sink", "Tap", "Trace", "TraceTarget", "attach"]

TraceTarget = str | os.PathLike[str] | BinaryIO | Sink
ENVIRONMENT = "CCID_TRACE"
"""Names a pcapng file that every reader opened by this process writes to; ``%p`` in it becomes
the process number. A forked child that opens readers writes to a file of its own, whose name ends
in its process number."""


class Trace:
    """A trace under way. Stop it, or use ``with``."""

    def __init__(self, reader: Reader, sink: Sink, secrets: bool) -> None:
        self.reader = reader
        self.sink = sink
        self.secrets = secrets

    def stop(self) -> None:
        """Write no more, and close the file if the trace opened it."""
        _detach(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def attach(reader: Reader, target: TraceTarget, secrets: bool = False) -> Trace:
    """Trace ``reader`` into ``target``; :meth:`ccid.Reader.trace` says the rest."""
    sink = target if isinstance(target, Sink) else PcapngSink(target)
    trace = Trace(reader, sink, secrets)
    try:
        sink.begin(reader.info)
    except BaseException:
        _end(sink, reader)
        raise
    with suppress(CcidError), reader.pipe.every_turn():  # else it is closed
        tap = reader.tap
        if tap is None:
            tap = Tap(reader.transport, reader.info, partial(_framings, reader))
        tap.sinks = (*tap.sinks, (sink, secrets))
        reader.retrace(tap, [*reader.traces, trace])
    return trace


def _framings(reader: Reader, slot: int) -> tuple[Framing, ...]:
    """What the blocks of a slot may be."""
    if reader.info.reader.is_iccd or slot >= len(reader.slots):
        return (Framing.APDU,)
    card = reader.slots[slot].card
    level = reader.slots[slot].descriptor.exchange_level
    return framings(level, None if card is None else card.protocol)


def _detach(trace: Trace) -> None:
    reader = trace.reader
    tap = reader.tap
    if trace not in reader.traces or tap is None:
        return
    with ExitStack() as stack:
        with suppress(CcidError):  # else it is closed
            stack.enter_context(reader.pipe.every_turn())
        rest = [other for other in reader.traces if other is not trace]
        tap.drop(trace.sink)
        reader.retrace(tap if rest else None, rest)
    _end(trace.sink, reader)


def _end(sink: Sink, reader: Reader) -> None:
    """End a sink. That its last bytes cannot be written is no error of the reader's."""
    try:
        sink.end()
    except Exception as error:
        logger.warning("%s: the trace cannot be ended: %s", reader.name, error)


_files: dict[str, PcapngSink] = {}


def attach_configured(reader: Reader) -> None:
    """Trace ``reader`` as ``CCID_TRACE`` and the level of the logger ``ccid.traffic`` ask."""
    name = os.environ.get(ENVIRONMENT)
    if name:
        path = str(Path(name.replace("%p", str(os.getpid()))).absolute())
        sink = _files.get(path)
        if sink is not None and sink.owner != os.getpid():  # a fork: the file is the parent's
            path += f".{os.getpid()}"
            sink = _files.get(path)
        if sink is None:
            sink = _files[path] = PcapngSink(path, keep_open=True)
            atexit.register(sink.close)
        attach(reader, sink)
    if traffic.isEnabledFor(TRAFFIC):
        attach(reader, LogSink(), _log_secrets)


_log_secrets = False


@contextmanager
def log_to_stderr(secrets: bool = False) -> Iterator[None]:
    """Meanwhile have all traffic logged to standard error, readable.

    Args:
        secrets: Do not mask PINs and keys.
    """
    global _log_secrets
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    before = traffic.level, traffic.propagate
    traffic.addHandler(handler)
    traffic.setLevel(TRAFFIC)
    traffic.propagate, _log_secrets = False, secrets
    try:
        yield
    finally:
        traffic.removeHandler(handler)
        traffic.setLevel(before[0])
        traffic.propagate = before[1]
        _log_secrets = False
