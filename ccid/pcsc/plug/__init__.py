"""The driver for pcscd: a small C driver (``plug.c``) that hands every call to a helper process.

``helper`` is that process, ``frames`` what both send to each other, ``bundle`` the files that pcscd
loads, ``install`` the command ``ccid-install-driver``. The driver itself is :mod:`ccid.pcsc.ifd`.
"""
