"""USB descriptors and CCID messages: bytes to objects and back. Pure.

- ``declaration``: how a descriptor or message is declared, once, as a dataclass.
- ``descriptors``: the USB descriptors of a reader, and the class-specific requests.
- ``messages``: the messages of USB CCID rev 1.1, chapter 6.
"""
