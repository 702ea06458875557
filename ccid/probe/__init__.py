"""The command ``ccid-probe``: dump, judge and exercise readers.

``__main__`` parses the command line, then imports the module of the one command that is asked for.
Each command is a module with a function ``run``.
"""
