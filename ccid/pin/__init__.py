"""PIN entry at the reader: structures and texts for its keys and its display. Pure."""
