"""The session with a card: activation, protocol and parameters, exchange of APDUs.

- ``activation``: powers a card up and agrees on protocol, speed and parameters.
- ``negotiation``: the decisions of the activation. Pure.
- ``exchange``: transfers APDUs through the reader, at its level of exchange.
"""
