"""Ctrl-C in programs whose tasks wait for a card: they end, whichever way they run their loop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

INTERRUPTED = """
import asyncio, os, signal, threading, ccid
from ccid import aio
from ccid.virtual import EchoCard
card = EchoCard()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process inherits it ignored
async def main():
    async with aio.open_reader(ccid.VirtualReader(card)) as reader:
        async with reader.slots[0].connect() as connected:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            await connected.transmit(bytes.fromhex("00380E10"))
{how}
"""
HOW = {
    "asyncio.run": "asyncio.run(main())",
    "a loop of one's own": "loop = asyncio.new_event_loop(); loop.run_until_complete(main())",
    "a loop that is closed": (
        "loop = asyncio.new_event_loop()\ntry: loop.run_until_complete(main())\n"
        "finally: loop.close()"
    ),
}


@pytest.mark.parametrize("how", HOW)
def test_ctrl_c(how: str) -> None:
    source = INTERRUPTED.format(how=HOW[how])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGINT or done.returncode == 130, done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
