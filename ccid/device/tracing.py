"""Traces of a reader, which begin and end in the turns of all slots.

:meth:`ccid.Reader.trace` makes a :class:`Trace`. The environment variable ``CCID_TRACE``, and the
level of the logger ``ccid.traffic``, make a trace of every reader that is opened.
"""

from __future__ import annotations

import atexit
import os
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from ccid.errors import CcidError, ReaderClosed
from ccid.ground.signal_safe_locks import new_rlock
from ccid.masking.exchange_watch import Framing, framings
from ccid.trace import log
from ccid.trace.log import TRAFFIC, LogSink
from ccid.trace.pcapng import PcapngSink
from ccid.trace.tap import Listener, Sink, Tap, logger

if TYPE_CHECKING:
    from ccid.device.reader import Reader

TraceTarget = str | os.PathLike[str] | BinaryIO | Sink
ENVIRONMENT = "CCID_TRACE"
"""Environment variable with the name of a pcapng file, for all readers that this process opens.
``%p`` in the name becomes the process number. A forked child that opens readers writes to a file of
its own; the name of that file ends in the process number of the child."""


class Trace:
    """A trace of one reader. Call :meth:`stop` at the end, or use ``with``.

    Attributes:
        reader: The reader.
        sink: Gets every transfer.
        secrets: True if PINs and keys are not masked.
    """

    def __init__(self, reader: Reader, sink: Sink, secrets: bool) -> None:
        """Make a trace that has not begun yet; :func:`attach` begins it.

        Args:
            reader: The reader.
            sink: Gets every transfer.
            secrets: True to record PINs and keys, False to mask them.
        """
        self.reader = reader
        self.sink = sink
        self.secrets = secrets
        self._listener: Listener = (sink, secrets)
        self._is_over = False
        self._ending: dict[str, object] = {}
        """Under ``call``, the call of :meth:`_end` that ends the sink. ``dict.setdefault`` is one
        step for threads and signals."""

    def stop(self) -> None:
        """End the trace, and close the file if the trace opened the file. A second call has no
        effect."""
        try:
            self._leave()
        finally:  # after Ctrl-C, too; the next stop() of a trace of this reader does what is left
            tap = self.reader.tap
            if tap is not None:
                tap.drop(self._listener)
            self._end()

    def _begin(self) -> None:
        """Begin; called in the turns of all slots."""
        reader = self.reader
        _check(reader)
        tap = reader.tap
        if tap is None:
            tap = Tap(reader.transport, reader.info, partial(_framings, reader))
        tap.add(self._listener)
        reader.retrace(tap, [*reader.traces, self])

    def _leave(self) -> None:
        """Remove this trace from the traces of the reader."""
        if self not in self.reader.traces:
            return
        try:
            self.reader.pipe.every_turn(self._forget)
        except CcidError:  # the reader is closed: no command is under way
            self._forget()

    def _forget(self) -> None:
        """Remove this trace, and the tap after the last trace; called in the turns of all slots."""
        reader = self.reader
        tap = reader.tap
        rest = [other for other in reader.traces if other is not self and not other._is_over]
        if tap is not None:
            tap.drop(self._listener)
        reader.retrace(tap if rest else None, rest)

    def _end(self) -> None:
        """End the sink. Of several threads one does that. If Ctrl-C interrupts that thread, a later
        call ends the sink."""
        call = object()
        try:
            if self._is_over or self._ending.setdefault("call", call) is not call:
                return
            self._end_sink()
            self._is_over = True
        finally:
            if not self._is_over and self._ending.get("call") is call:
                self._ending.clear()

    def _end_sink(self) -> None:
        """End the sink, and log an error of the sink: the reader is not affected."""
        try:
            self.sink.end()
        except Exception as error:
            logger.warning("%s: the trace cannot be ended: %s", self.reader.name, error)

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
    """Begin a trace (:meth:`ccid.Reader.trace`).

    Args:
        reader: The reader.
        target: A file name, an open binary file, or a sink.
        secrets: True to record PINs and keys, False to mask them.

    Returns:
        The trace.

    Raises:
        ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
        TraceFailed: The file cannot be made, or written.
    """
    _check(reader)  # before the file is made
    trace = Trace(reader, target if isinstance(target, Sink) else PcapngSink(target), secrets)
    try:
        trace.sink.begin(reader.info)
        reader.pipe.every_turn(trace._begin)
        _check(reader)  # a thread that closes the reader from now on stops this trace
    except BaseException:
        trace.stop()
        raise
    return trace


def _check(reader: Reader) -> None:
    """Check that the reader can be traced.

    Raises:
        ReaderClosed, ReaderRemoved, ReaderForked: The reader cannot be used any more.
    """
    reader.pipe.check()
    if reader.is_closed:
        raise ReaderClosed(f"{reader.name} was closed", reader=reader.name)


def _framings(reader: Reader, slot: int) -> tuple[Framing, ...]:
    """What the blocks to and from a slot may contain.

    Args:
        reader: The reader.
        slot: bSlot.
    """
    if reader.info.reader.is_iccd or slot >= len(reader.slots):
        return (Framing.APDU,)
    card = reader.slots[slot].card
    level = reader.slots[slot].descriptor.exchange_level
    return framings(level, None if card is None else card.protocol)


_files: dict[str, PcapngSink] = {}
"""The files of ``CCID_TRACE``, by name."""
_files_lock = new_rlock()


def _renew_lock() -> None:
    """A new lock for a forked child: a thread of the parent may hold the old lock."""
    global _files_lock
    _files_lock = new_rlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def attach_configured(reader: Reader) -> None:
    """Begin the traces that ``CCID_TRACE`` and the level of the logger ``ccid.traffic`` ask for.

    Args:
        reader: The reader.

    Raises:
        TraceFailed: The file cannot be made, or written.
    """
    name = os.environ.get(ENVIRONMENT)
    if name:
        attach(reader, _file_of(name))
    if log.logger.isEnabledFor(TRAFFIC):
        attach(reader, LogSink(), log.shows_secrets())


def _file_of(name: str) -> PcapngSink:
    """The trace file of this process. The first reader makes the file; two threads may open readers
    at the same time."""
    path = str(Path(name.replace("%p", str(os.getpid()))).absolute())
    with _files_lock:
        sink = _files.get(path)
        if sink is not None and sink.owner != os.getpid():  # the parent of this child writes it
            path += f".{os.getpid()}"
            sink = _files.get(path)
        if sink is None:
            sink = _files[path] = PcapngSink(path, keep_open=True)
            atexit.register(_close, sink)
        return sink


def _close(sink: PcapngSink) -> None:
    """Close the file at the end of the program, and log an error."""
    try:
        sink.close()
    except OSError as error:
        logger.warning("the trace cannot be ended: %s", error)
