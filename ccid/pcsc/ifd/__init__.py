"""An IFD handler 3.0: what a PC/SC daemon asks of a driver, answered by :mod:`ccid.device.reader`.

``handler`` has the functions; ``channel`` is one slot; ``names`` understands device strings;
``codes`` has the numbers, and the table that makes response codes of errors. Notifications come by
:meth:`ccid.Reader.listen`. :mod:`ccid.pcsc.plug` plugs it into pcscd.
"""

from ccid.pcsc.ifd.handler import IFDHandler
from ccid.pcsc.ifd.ifd_codes import Action, Code, Tag

__all__ = ["Action", "Code", "IFDHandler", "Tag"]
