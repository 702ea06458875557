"""The headers of XfrBlock and of its reply as :class:`struct.Struct`, for the hot path of APDUs.

The formats come from the declarations (:func:`ccid.codec.declaration.packer`), so that each layout
is written only once.
"""

from __future__ import annotations

from ccid.codec.declaration import packer
from ccid.codec.messages.commands import PC_to_RDR_XfrBlock
from ccid.codec.messages.replies import RDR_to_PC_DataBlock

XFR_BLOCK = PC_to_RDR_XfrBlock.bMessageType
DATA_BLOCK = RDR_to_PC_DataBlock.bMessageType

xfr_block_header = packer(PC_to_RDR_XfrBlock.header_fields)
"""bMessageType, dwLength, bSlot, bSeq, bBWI, wLevelParameter."""
reply_header = packer(RDR_to_PC_DataBlock.header_fields)
"""bMessageType, dwLength, bSlot, bSeq, bStatus, bError, bChainParameter."""
