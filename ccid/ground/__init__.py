"""What every room may use: text made safe to show, hexadecimal, what is made once, the end.

Pure except :mod:`~ccid.ground.once` (a lock) and :mod:`~ccid.ground.at_exit` (the end of Python).
"""
