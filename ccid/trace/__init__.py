"""Traces: every USB transfer of a reader, as pcapng for Wireshark and as text for people.

- ``tap``: stands between the commands and the transport, and tells sinks of every transfer.
- ``pcapng``: the sink that writes a pcapng file.
- ``log``: the sink that writes to the logger ``ccid.traffic``.
- ``private_files``: makes the files, for this user alone.

:meth:`ccid.Reader.trace` begins a trace (:mod:`ccid.device.tracing`). A reader without a trace has
no tap, so a trace that is off costs nothing.

PINs and keys do not get into a trace. The tap follows the messages and finds the exchanges that may
be secret (:mod:`ccid.masking.censor`). In every block of these exchanges the tap masks the data,
and the check bytes from which the data could be computed.
"""

from ccid.trace.log import TRAFFIC, LogSink
from ccid.trace.pcapng import PcapngSink
from ccid.trace.tap import Sink, Tap

__all__ = ["TRAFFIC", "LogSink", "PcapngSink", "Sink", "Tap"]
