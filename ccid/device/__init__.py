"""What a person holds: readers, slots and cards; finding, watching and judging them."""
