"""ISO/IEC 7816-3:2006, pure: bytes in, bytes out, no I/O, no clock.

``atr`` the answer to reset, ``apdu`` command APDUs and their cases, ``timing`` how long a card
may take.
"""
