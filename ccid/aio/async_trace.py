"""A trace of a reader, for tasks of asyncio: the face of :class:`ccid.device.tracing.Trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccid.aio.job_thread import apart_to_the_end
from ccid.aio.opening import Ending
from ccid.trace.tap import Sink

if TYPE_CHECKING:
    from ccid.aio.async_reader import Reader
    from ccid.device import tracing


class Trace(Ending):
    """A trace of one reader. Call :meth:`stop` at the end, or use ``async with``.

    Attributes:
        reader: The reader.
        sink: Gets every transfer.
        secrets: True if PINs and keys are not masked.
    """

    def __init__(self, reader: Reader, trace: tracing.Trace) -> None:
        """Make the face of a trace; :class:`~ccid.aio.Reader` does.

        Args:
            reader: The reader.
            trace: The trace.
        """
        self.reader = reader
        self.sink: Sink = trace.sink
        self.secrets = trace.secrets
        self._trace = trace

    async def stop(self) -> None:
        """End the trace, and close the file if the trace opened the file. A second call has no
        effect."""
        await apart_to_the_end(f"end of the trace of {self.reader.name}", self._trace.stop)

    async def _leave(self, error: BaseException | None) -> None:
        await self.stop()  # of a coroutine that is thrown away the reader ends it
