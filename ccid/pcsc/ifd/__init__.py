"""An IFD handler 3.0: what a PC/SC daemon asks of a driver, answered by :mod:`ccid.reader`.

``handler`` has the functions; ``channel`` is one slot; ``names`` understands device strings;
``codes`` has the numbers, and the table that makes response codes of errors. Notifications come by
:meth:`ccid.Reader.listen`. :mod:`ccid.pcscd` plugs it into pcscd.
"""

from ccid.ifd.codes import Action, Code, Tag
from ccid.ifd.handler import IFDHandler

__all__ = ["Action", "Code", "IFDHandler", "Tag"]
