"""What ``smartcard.scard`` of pyscard has, without libpcsclite, pcscd or a socket.

    from ccid.pcsc.scard import *

    hresult, context = SCardEstablishContext(SCARD_SCOPE_USER)
    hresult, readers = SCardListReaders(context, [])
    hresult, card, protocol = SCardConnect(
        context, readers[0], SCARD_SHARE_SHARED, SCARD_PROTOCOL_T0 | SCARD_PROTOCOL_T1
    )
    hresult, response = SCardTransmit(card, protocol, [0x00, 0xA4, 0x00, 0x0C])

The same names, arguments, return codes and shapes of results as pyscard 2.3.1 has with pcsc-lite.
A resource manager in this process (:mod:`ccid.pcsc.manager`) does the work. Its readers are those
on USB, or what ``CCID_PCSC_READERS`` says: ``--virtual 08e6:3437 --card echo``.
:func:`ccid.pcsc.under_pyscard` puts this module under the rest of pyscard.

:mod:`~ccid.pcsc.scard.scard_functions` has the functions,
:mod:`~ccid.pcsc.scard.scard_constants` the constants, :mod:`~ccid.pcsc.scard.chosen_readers` the
readers.
"""

from __future__ import annotations

from ccid.pcsc.scard.scard_constants import *  # noqa: F403
from ccid.pcsc.scard.scard_functions import *  # noqa: F403

__all__ = [
    name
    for name in sorted(globals())
    if name.startswith(("SCARD_", "SCard"))
    or name in ("INFINITE", "INVALID_HANDLE", "error", "resourceManager", "resourceManagerSubType")
]
