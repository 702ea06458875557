"""Every USB message, written down: pcapng for Wireshark, text for people.

A trace sits between the command layer and the transport (:class:`~.tap.Tap`), so it sees what
really goes over the wire, and costs nothing when there is none: then there is no tap.

PINs and keys do not get into it. The exchange layer knows the APDU and marks the whole exchange
as secret (:mod:`~.secrets`); the tap then masks the data, and the check bytes from which data
could be reckoned back, in every block of it.
"""

from __future__ import annotations

import atexit
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from ccid.trace.log import TRAFFIC, LogSink, logger
from ccid.trace.pcapng import PcapngSink
from ccid.trace.tap import Sink, Tap

if TYPE_CHECKING:
    from ccid.reader import Reader

__all__ = ["TRAFFIC", "LogSink", "PcapngSink", "Sink", "Tap", "Trace", "TraceTarget", "attach"]

TraceTarget = str | os.PathLike[str] | BinaryIO | Sink
ENVIRONMENT = "CCID_TRACE"
"""Names a pcapng file that every reader opened by this process writes to; ``%p`` in it becomes
the process number."""


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
    sink.begin(reader.info)
    _rewire(reader, [*reader.traces, trace])
    return trace


def _detach(trace: Trace) -> None:
    if trace in trace.reader.traces:
        _rewire(trace.reader, [other for other in trace.reader.traces if other is not trace])
        trace.sink.end()


def _rewire(reader: Reader, traces: list[Trace]) -> None:
    """Put a tap with all ``traces`` between pipe and transport; none, no tap."""
    transport = reader.transport
    tap = Tap(transport, reader.info, [(t.sink, t.secrets) for t in traces]) if traces else None
    reader.retrace(tap, traces)


_files: dict[str, PcapngSink] = {}


def attach_configured(reader: Reader) -> None:
    """Trace ``reader`` as ``CCID_TRACE`` and the level of the logger ``ccid.traffic`` ask."""
    name = os.environ.get(ENVIRONMENT)
    if name:
        path = str(Path(name.replace("%p", str(os.getpid()))).absolute())
        sink = _files.get(path)
        if sink is None or sink.owner != os.getpid():
            sink = _files[path] = PcapngSink(path, keep_open=True)
            atexit.register(sink.close)
        attach(reader, sink)
    if logger.isEnabledFor(TRAFFIC):
        attach(reader, LogSink())


def log_to_stderr() -> None:
    """Have all traffic logged to standard error, readable."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(TRAFFIC)
    logger.propagate = False
