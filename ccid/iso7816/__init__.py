"""Cards with contacts after ISO/IEC 7816-3:2006. Pure: bytes in, bytes out, no I/O, no clock.

- ``atr``: the answer to reset (ATR), parsed. ``atr_text``: an ATR in words.
- ``historical_bytes``: the historical bytes of an ATR. ``historical_bytes_text``: these in words.
- ``pps``: protocol and parameters selection (PPS).
- ``timing``: waiting times and time limits of a card.
- ``apdu``: command APDUs and their seven cases. ``status_words``: SW1 SW2 in words.
- ``t0``: the protocol T=0, character by character and TPDU by TPDU.
- ``t1``: the protocol T=1. ``t1_rules``: its rules as a table of states.
- ``error_detection``: LRC and CRC, the epilogue of a T=1 block.
- ``protocol_runner``: drives the machines of ``t0`` and ``t1`` over a link to the card.
"""
