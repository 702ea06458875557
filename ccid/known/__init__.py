"""Knowledge about readers and cards that is in no descriptor and no ATR. Pure, apart from files.

- ``quirks``: the table of readers (``readers/*.toml``): name, status and quirks of each reader.
- ``descriptor_figures``: the descriptors of real readers (``readers/descriptors/*.json``).
- ``catalog``: table and descriptors together, for searches.
- ``extended_apdus``: whether a reader transfers extended APDUs.
- ``card_quirks``: waiting times of cards whose ATR is wrong.
"""
