"""Further contexts of the real libusb: what each costs, forks, and the end of Python."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts in /proc")

COUNT = 20
PROGRAM = f"""
import json, os, sys
import libusb_package
from ccid.transport import libusb
if sys.argv[1] == "package":
    libusb._find = lambda _: str(libusb_package.find_library("usb-1.0"))
def there():
    return [len(os.listdir("/proc/self/" + what)) for what in ("task", "fd")]
libusb.backend()
before = there()
for _ in range({COUNT}):
    libusb.another_context()
after = there()
child = os.fork()
if child == 0:  # the parent's contexts have no threads here
    libusb.another_context()
    sys.exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps([libusb.library_name(), before, after, status]))
"""


@pytest.mark.parametrize("which", ["system", "package"])
def test_contexts(which: str) -> None:
    """libusb has one thread for all contexts, and two descriptors for each."""
    if which == "system":
        try:
            ctypes.CDLL("libusb-1.0.so.0")
        except OSError:
            pytest.skip("this system has no libusb")
    words = [sys.executable, "-c", PROGRAM, which]
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    name, before, after, child = json.loads(done.stdout)
    assert ("libusb_package" in name) == (which == "package")
    assert after == [before[0], before[1] + 2 * COUNT]
    assert child == 7
