"""Tools that every other package may use. They know nothing of readers and cards.

- ``safe_text``: text from a device, a file or a client, made safe to show. Pure.
- ``hexadecimal``: bytes from hexadecimal text as people paste it. Pure.
- ``once``: a value that is made once, also if several threads ask at the same time.
- ``at_exit``: functions that are called when Python ends, before libusb ends.
"""
