"""``usbip attach`` in the guest."""

from __future__ import annotations

import time

from lab.guest import Guest

ATTEMPTS = 5


def attach(guest: Guest, busid: str, port: int) -> None:
    """Attach a reader of the server on ``port``.

    usbip reads the state of all ports from sysfs while the kernel changes it, and now and then
    fails to ("open vhci_driver"), before it has asked the server for anything.
    """
    command = ["usbip", "--tcp-port", str(port), "attach", "-r", "127.0.0.1", "-b", busid]
    for attempt in range(1, ATTEMPTS + 1):
        done = guest.run(command, check=attempt == ATTEMPTS)
        if done.returncode == 0:
            return
        assert "open vhci_driver" in done.stderr, done.stderr
        time.sleep(0.5)
