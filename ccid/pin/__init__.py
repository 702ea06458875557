"""PIN entry at a reader that has a PIN pad: structures and display texts. Pure.

- ``pad_structures``: the structures of PC/SC part 10, and what a reader gets for them.
- ``pad_texts``: the texts that the display of a PIN pad shows, in eight languages.
"""
