"""What a trace shows of an exchange that carries a PIN or a key.

Lengths stay; of every block of the exchange only what is listed here is shown, the rest becomes
:data:`MASK`. Check bytes are masked with the data: from an LRC, a digit could be reckoned back.
"""

from __future__ import annotations

from ccid.messages import HEADER_LENGTH, PC_to_RDR_Secure, PC_to_RDR_XfrBlock, RDR_to_PC_DataBlock
from ccid.visible import Visible

MASK = 0x2A
"""Stands for every byte that is not shown: an asterisk in Wireshark's text column."""

XFR_BLOCK = PC_to_RDR_XfrBlock.bMessageType
SECURE = PC_to_RDR_Secure.bMessageType
DATA_BLOCK = RDR_to_PC_DataBlock.bMessageType


SECURE_COMMAND = Visible(first_out=1, tail_in=2)
"""For PC_to_RDR_Secure: bPINOperation, and SW1 SW2."""


def masked(message: bytes, head: int, tail: int) -> bytes:
    """``message`` with its data masked but for ``head`` bytes at the start and ``tail`` at the
    end of them."""
    return message[:HEADER_LENGTH] + masked_block(message[HEADER_LENGTH:], head, tail)


def masked_block(block: bytes, head: int, tail: int) -> bytes:
    """``block`` masked but for ``head`` bytes at the start and ``tail`` at the end."""
    hidden = len(block) - head - tail
    if hidden <= 0:
        return block
    return block[:head] + bytes([MASK]) * hidden + block[head + hidden :]
