"""Readers, slots and cards: find, open, use, watch and judge them.

- ``find``: the readers on this machine's USB, and opening one of them.
- ``reader``: an open reader.
- ``first_commands``: the first commands to a reader, until the reader answers.
- ``listener``: a function that is called for each notification of a reader.
- ``slot``: a slot of an open reader.
- ``card``: a card that has power and an agreed protocol.
- ``composite``: several interfaces of one USB device as one reader.
- ``control``: control codes of PC/SC part 10: features, PIN pad, Escape.
- ``verdict``: whether a reader will work, judged by its descriptors.
- ``watching``: readers and cards as they come and go.
- ``watch_tasks``: what a watch does with one reader in a thread of its own.
- ``tracing``: traces of an open reader.
- ``reader_link``: the conversation with a reader, and the commands of its slots.
- ``open_readers``: the readers that this process has open.
- ``unclosed_readers``: closing readers that the application did not close.
"""
