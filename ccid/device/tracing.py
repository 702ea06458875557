"""Traces of a reader: begun and ended in the turns of all slots.

``reader.trace`` makes a :class:`Trace`. The environment variable ``CCID_TRACE`` and the level of
the logger ``ccid.traffic`` make one for every reader that is opened.
"""

from __future__ import annotations

import atexit
import os
import threading
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from ccid.errors import CcidError, ReaderClosed
from ccid.masking.exchange_watch import Framing, framings
from ccid.trace import log
from ccid.trace.log import TRAFFIC, LogSink
from ccid.trace.pcapng import PcapngSink
from ccid.trace.tap import Listener, Sink, Tap, logger

if TYPE_CHECKING:
    from ccid.device.reader import Reader

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
        self._listener: Listener = (sink, secrets)
        self._is_over = False
        self._ending: dict[str, object] = {}

    def stop(self) -> None:
        """Write no more, and close the file if the trace opened it. More than once does no harm."""
        try:
            self._leave()
        finally:  # after Ctrl-C, too; what else is left, the next stop of a trace puts in order
            tap = self.reader.tap
            if tap is not None:
                tap.drop(self._listener)
            self._end()

    def _begin(self) -> None:
        """Begin, in the turns of all slots."""
        reader = self.reader
        _check(reader)
        tap = reader.tap
        if tap is None:
            tap = Tap(reader.transport, reader.info, partial(_framings, reader))
        tap.add(self._listener)
        reader.retrace(tap, [*reader.traces, self])

    def _leave(self) -> None:
        """Be no trace of the reader's any more."""
        if self not in self.reader.traces:
            return
        try:
            self.reader.pipe.every_turn(self._forget)
        except CcidError:  # it is closed: nothing is under way
            self._forget()

    def _forget(self) -> None:
        reader = self.reader
        tap = reader.tap
        rest = [other for other in reader.traces if other is not self and not other._is_over]
        if tap is not None:
            tap.drop(self._listener)
        reader.retrace(tap if rest else None, rest)

    def _end(self) -> None:
        """End the sink, once, whatever thread comes first; again if Ctrl-C came meanwhile."""
        me = object()
        try:
            if self._is_over or self._ending.setdefault("by", me) is not me:
                return
            self._end_sink()
            self._is_over = True
        finally:
            if not self._is_over and self._ending.get("by") is me:
                self._ending.clear()

    def _end_sink(self) -> None:
        """That its last bytes cannot be written is no error of the reader's."""
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
    """Trace ``reader`` into ``target``; :meth:`ccid.Reader.trace` says the rest."""
    _check(reader)  # before there is a file
    trace = Trace(reader, target if isinstance(target, Sink) else PcapngSink(target), secrets)
    try:
        trace.sink.begin(reader.info)
        reader.pipe.every_turn(trace._begin)
        _check(reader)  # whoever closes it from now on, finds this trace and stops it
    except BaseException:
        trace.stop()
        raise
    return trace


def _check(reader: Reader) -> None:
    """Raise why there is nothing to trace, if there is nothing: the reader was closed, unplugged,
    or is another process's."""
    reader.pipe.check()
    if reader.is_closed:
        raise ReaderClosed(f"{reader.name} was closed", reader=reader.name)


def _framings(reader: Reader, slot: int) -> tuple[Framing, ...]:
    """What the blocks of a slot may be."""
    if reader.info.reader.is_iccd or slot >= len(reader.slots):
        return (Framing.APDU,)
    card = reader.slots[slot].card
    level = reader.slots[slot].descriptor.exchange_level
    return framings(level, None if card is None else card.protocol)


_files: dict[str, PcapngSink] = {}
_files_lock = threading.RLock()


def _renew_lock() -> None:
    global _files_lock
    _files_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def attach_configured(reader: Reader) -> None:
    """Trace ``reader`` as ``CCID_TRACE`` and the level of the logger ``ccid.traffic`` ask."""
    name = os.environ.get(ENVIRONMENT)
    if name:
        attach(reader, _file_of(name))
    if log.logger.isEnabledFor(TRAFFIC):
        attach(reader, LogSink(), log.shows_secrets())


def _file_of(name: str) -> PcapngSink:
    """The trace file of this process; begun by the first reader, whichever threads open two."""
    path = str(Path(name.replace("%p", str(os.getpid()))).absolute())
    with _files_lock:
        sink = _files.get(path)
        if sink is not None and sink.owner != os.getpid():  # a fork: the file is the parent's
            path += f".{os.getpid()}"
            sink = _files.get(path)
        if sink is None:
            sink = _files[path] = PcapngSink(path, keep_open=True)
            atexit.register(_close, sink)
        return sink


def _close(sink: PcapngSink) -> None:
    """The end of the program: that the last bytes cannot be written is said, and no more."""
    try:
        sink.close()
    except OSError as error:
        logger.warning("the trace cannot be ended: %s", error)
