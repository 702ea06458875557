"""The helper of pcscd's plug without that; tests/integration/test_plug.py has both."""

from __future__ import annotations

import socket
from typing import Any

from ccid.pcscd.helper import Helper


def test_an_event_while_another_channel_is_closed() -> None:
    """Its thread takes it out of the list while that is looked through."""
    one, other = socket.socketpair()
    with one, other:
        helper: Any = Helper(one, "")
        told = []

        class Closing:
            @property
            def lun(self) -> int:
                helper.channels.remove(self)
                return 1

        class Open:
            lun = 2

            def tell(self, is_gone: bool) -> None:
                told.append(self.lun)

        helper.channels[:] = [Closing(), Open()]
        helper._on_event(2)
        assert told == [2]
