"""What is known of a reader beyond its descriptors: ``readers/*.toml``, one file a USB vendor.

    vendor = "Gemalto"

    [reader.4433]
    name = "Gemalto GemPC433-Swap"
    status = "supported"

``vocabulary`` declares every quirk, ``table_entries`` parses a file, ``reader_table`` finds what is
known of a reader, and ``descriptor_fixups`` bends its class descriptor. Code asks
``quirks.interfaces_take_turns``, never for a vendor's number.
"""

from ccid.known.quirks.reader_table import Known, known_readers, lookup, table
from ccid.known.quirks.vocabulary import VOCABULARY, Description, Quirks

__all__ = ["VOCABULARY", "Description", "Known", "Quirks", "known_readers", "lookup", "table"]
