"""An IFD handler 3.0: the functions a PC/SC daemon calls, on top of :mod:`ccid.device.reader`.

``handler`` has the functions, ``channel`` one slot, ``device_strings`` parses device strings,
``ifd_codes`` maps errors to response codes; :mod:`ccid.pcsc.numbers.ifd_numbers` has them. Events
of readers come by :meth:`ccid.Reader.listen`. :mod:`ccid.pcsc.plug` connects the handler to pcscd.
"""

from ccid.pcsc.ifd.handler import IFDHandler
from ccid.pcsc.numbers.ifd_numbers import Action, Code, Tag

__all__ = ["Action", "Code", "IFDHandler", "Tag"]
