"""Modules that are loaded when something uses them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ccid.pcsc.plug.helper import UNUSED
from ccid.pcsc.plug.lazy_modules import LazyModule

IN_A_PROCESS = """
import sys
from ccid.pcsc.plug.lazy_modules import LazyModule, load_lazily
load_lazily("colorsys", "sys")
import colorsys
assert isinstance(sys.modules["colorsys"], LazyModule)
assert not isinstance(sys.modules["sys"], LazyModule), "sys was loaded before"
assert not hasattr(colorsys, "__wrapped__")
assert isinstance(sys.modules["colorsys"], LazyModule), "a special name loads nothing"
assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
assert not isinstance(sys.modules["colorsys"], LazyModule)
from colorsys import hsv_to_rgb
assert hsv_to_rgb is colorsys.hsv_to_rgb is sys.modules["colorsys"].hsv_to_rgb
"""

AS_A_HELPER = """
import sys
from ccid.pcsc.plug import helper
from ccid.pcsc.plug.lazy_modules import LazyModule
helper.load_lazily(*helper.UNUSED)
from ccid.pcsc.ifd import Code, IFDHandler
handler = IFDHandler()
assert handler.create_channel_by_name(0, "virtual:") is Code.SUCCESS
print(*(name for name in helper.UNUSED if isinstance(sys.modules[name], LazyModule)))
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_module_is_loaded_when_it_is_used() -> None:
    run(IN_A_PROCESS)


def test_a_helper_loads_none_of_the_unused_modules() -> None:
    used = {"inspect"} if sys.version_info >= (3, 12) else set()  # dataclasses uses inspect
    assert set(UNUSED) - used <= set(run(AS_A_HELPER).split())


def test_a_name_that_the_module_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = LazyModule("colorsys").no_such_name
