"""Plugged into pcscd: a small C driver (``plug.c``) that hands every call to a helper process.

``helper`` is that process, ``wire`` what goes between the two, ``install`` the command
``ccid-install-driver``. The driver itself is :mod:`ccid.pcsc.ifd`.
"""
