"""What the table of readers knows: quirks, figures of descriptors, cards by their ATR."""
