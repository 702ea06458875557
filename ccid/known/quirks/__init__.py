"""Quirks: differences of a reader from its descriptors and the specification (``readers/*.toml``).

    vendor = "Gemalto"

    [reader.4433]
    name = "Gemalto GemPC433-Swap"
    status = "supported"

Each USB vendor has a file. Code asks for a quirk (``quirks.interfaces_take_turns``), never for the
number of a vendor.

- ``vocabulary``: every quirk, declared once as a field of :class:`Quirks`.
- ``value_kinds``: the kinds of values that quirks have.
- ``gadget_commands``: commands for buzzer and LEDs, with places for duration and LEDs.
- ``table_entries``: one file of the table, parsed.
- ``reader_table``: the whole table with the user's files; :func:`lookup` finds the quirks of a
  reader.
- ``descriptor_fixups``: the class descriptor of a reader, corrected by quirks.
- ``toml_values``, ``toml_lines``: writing TOML values; line numbers in TOML texts for errors.
"""

from ccid.known.quirks.reader_table import Known, known_readers, lookup, table
from ccid.known.quirks.vocabulary import VOCABULARY, Description, Quirks

__all__ = ["VOCABULARY", "Description", "Known", "Quirks", "known_readers", "lookup", "table"]
