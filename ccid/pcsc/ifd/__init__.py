"""An IFD handler 3.0: the functions a PC/SC daemon calls, on top of :mod:`ccid.device.reader`.

``handler`` has the functions, ``channel`` one slot, ``device_strings`` parses device strings,
``ifd_codes`` maps errors to response codes. The numbers are in :mod:`ccid.pcsc.ifd_numbers`. Events
of readers come by :meth:`ccid.Reader.listen`. :mod:`ccid.pcsc.plug` connects the handler to pcscd.
"""

from ccid.pcsc.ifd.handler import IFDHandler
from ccid.pcsc.ifd_numbers import Action, Code, Tag

__all__ = ["Action", "Code", "IFDHandler", "Tag"]
