"""PC/SC without a daemon: a resource manager in this process, or behind a socket
(:mod:`ccid.pcsc.service`).

::

    from ccid.pcsc.manager import Manager, ReaderState, ScardCode, ScardError, Share

    manager = Manager(virtual=[ccid.VirtualReader()], usb=False)   # or shared_manager(), for USB
    context = manager.establish()                       # SCardEstablishContext -> int
    names = manager.list_readers(context)               # list[str]
    handle, protocol = manager.connect(context, names[0], Share.SHARED, Proto.T0 | Proto.T1)
    manager.status(handle)                              # CardStatus(name, state, protocol, atr)
    manager.begin(handle, timeout=2.0)                  # SCardBeginTransaction
    response, _ = manager.transmit(handle, protocol, apdu)
    manager.end(handle, Disposition.LEAVE)
    manager.reconnect(handle, share, protocols, Disposition.RESET)  # -> active protocol
    manager.control(handle, code, data), .get_attrib(handle, id), .set_attrib(handle, id, value)
    code, states = manager.get_status_change(context, 5000, [ReaderState(names[0], current)])
    manager.cancel(context)                             # from any thread
    manager.disconnect(handle, Disposition.UNPOWER)
    manager.plug(ccid.VirtualReader())                  # one more; it leaves by its unplug()
    manager.is_valid(context); manager.release(context); manager.close()

Each function raises :class:`ScardError` with ``code`` where PC/SC returns one that is not
``S_SUCCESS``. ``get_status_change`` returns its code (S_SUCCESS, E_TIMEOUT, E_CANCELLED) with the
states, which are filled in all three cases. Any thread may call anything at any time: calls on one
context do not wait for each other. :func:`shared_manager` is one manager for a whole process; a
fork has one of its own, in which the parent's numbers are invalid.

From the inside: :mod:`~ccid.pcsc.manager.card_calls` has the functions as generators,
:mod:`~ccid.pcsc.manager.resources` what happens to cards and readers,
:mod:`~ccid.pcsc.manager.core` runs both, pure. :mod:`~ccid.pcsc.manager.engine` is the edge: it
has the drivers (:mod:`~ccid.pcsc.manager.slot_driver`) and the readers. What differs from pcsc-lite
is told in ``docs/pcsc.md``.
"""

from ccid.pcsc.manager.card_calls import CardStatus
from ccid.pcsc.manager.in_process import Manager, shared_manager
from ccid.pcsc.manager.scard_codes import (
    INFINITE,
    PNP_READER,
    READER_GROUP,
    CardBits,
    Disposition,
    Proto,
    ScardCode,
    ScardError,
    Scope,
    Share,
    StateBits,
)
from ccid.pcsc.manager.status_changes import ReaderState

__all__ = [
    "INFINITE",
    "PNP_READER",
    "READER_GROUP",
    "CardBits",
    "CardStatus",
    "Disposition",
    "Manager",
    "Proto",
    "ReaderState",
    "ScardCode",
    "ScardError",
    "Scope",
    "Share",
    "StateBits",
    "shared_manager",
]
