"""Every USB message, written down: pcapng for Wireshark, text for people.

``tap`` stands between the commands and the transport and tells sinks of every transfer; ``pcapng``
and ``log`` are the sinks; ``private_files`` makes the files. A reader without a trace has no tap,
so a trace that is off costs nothing. :meth:`ccid.Reader.trace` begins one
(:mod:`ccid.device.tracing`).

PINs and keys do not get into a trace. The tap follows the messages and sees which exchanges may be
secret (:mod:`ccid.masking.censor`). In every block of these exchanges the tap masks the data, and
the check bytes from which the data could be computed. The file is for the user alone.
"""

from ccid.trace.log import TRAFFIC, LogSink
from ccid.trace.pcapng import PcapngSink
from ccid.trace.tap import Sink, Tap

__all__ = ["TRAFFIC", "LogSink", "PcapngSink", "Sink", "Tap"]
