"""Fuzzing: hostile bytes for every part that reads bytes of others.

``targets`` has a function for each part; ``corpus`` has the inputs that it begins with, from real
data, and those that once broke something; ``dictionaries`` has the words of some. ``tools/fuzz``
runs them, guided by coverage where atheris is installed; ``test_fuzz.py`` runs each a little.
"""
