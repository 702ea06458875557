"""The command ``ccid-probe``: dump, judge and exercise readers.

``__main__`` takes the command line apart and imports nothing else until it knows what is wanted;
each command is a module with a function ``run``.
"""
