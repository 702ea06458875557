"""Tools for all other packages, without any knowledge of readers and cards.

- ``safe_text``: text from a device, a file or a client, made safe to show. Pure.
- ``printable_log``: log lines that are safe to show. Pure.
- ``hexadecimal``: bytes from hexadecimal text as people paste it. Pure.
- ``once``: a value that is made once, also if several threads ask at the same time.
- ``at_exit``: functions that are called when Python ends, before libusb ends.
"""
