"""Masking: which bytes of traffic are a PIN or a key, and may not be shown. Pure.

- ``secret_commands``: which command APDUs carry a PIN or a key, by CLA and INS.
- ``exchange_watch``: the blocks of one slot, followed in order, with secret bytes masked.
- ``censor``: whole CCID messages with secret bytes masked.
"""
