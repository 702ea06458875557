"""The shared object of the plug, built and called by ctypes as pcscd calls it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from ctypes import byref, c_char_p, c_long, c_ubyte, c_ulong
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "ccid/pcsc/plug/plug.c"
STRICT = ["-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden"]


def build(folder: Path, *options: str, compiler: str = "cc") -> Path:
    """Build the shared object in ``folder``. A file beside it names this interpreter."""
    made = folder / "libccid-python.so"
    command = [
        compiler,
        *STRICT,
        *options,
        "-shared",
        str(SOURCE),
        "-o",
        str(made),
        "-pthread",
        "-ldl",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "interpreter").write_text(f"{sys.executable}\n")
    return made


class SendHeader(ctypes.Structure):
    """SCARD_IO_HEADER."""

    _fields_ = (("Protocol", c_ulong), ("Length", c_ulong))


class Plug:
    """The functions of the shared object."""

    def __init__(self, path: Path) -> None:
        self.lib = ctypes.CDLL(str(path))
        self.path = path
        for name in ("CreateChannelByName", "CreateChannel", "CloseChannel", "GetCapabilities",
                     "SetCapabilities", "SetProtocolParameters", "PowerICC", "TransmitToICC",
                     "Control", "ICCPresence"):  # fmt: skip
            getattr(self.lib, f"IFDH{name}").restype = c_long

    def create(self, lun: int, name: str) -> int:
        return int(self.lib.IFDHCreateChannelByName(c_ulong(lun), c_char_p(name.encode())))

    def close(self, lun: int) -> int:
        return int(self.lib.IFDHCloseChannel(c_ulong(lun)))

    def presence(self, lun: int) -> int:
        return int(self.lib.IFDHICCPresence(c_ulong(lun)))

    def get(self, lun: int, tag: int, capacity: int = 300) -> tuple[int, bytes]:
        value, length = (c_ubyte * max(1, capacity))(), c_ulong(capacity)
        code = self.lib.IFDHGetCapabilities(c_ulong(lun), c_ulong(tag), byref(length), value)
        return int(code), bytes(value[: 0 if code else length.value])

    def length(self, lun: int, tag: int, capacity: int) -> tuple[int, int]:
        """The return code, and the length after the call."""
        value, length = (c_ubyte * capacity)(), c_ulong(capacity)
        code = self.lib.IFDHGetCapabilities(c_ulong(lun), c_ulong(tag), byref(length), value)
        return int(code), length.value

    def set(self, lun: int, tag: int, value: bytes) -> int:
        return int(
            self.lib.IFDHSetCapabilities(
                c_ulong(lun), c_ulong(tag), c_ulong(len(value)), c_char_p(value)
            )
        )

    def power(self, lun: int, action: int, capacity: int = 33) -> tuple[int, bytes]:
        atr, length = (c_ubyte * 33)(), c_ulong(capacity)
        code = self.lib.IFDHPowerICC(c_ulong(lun), c_ulong(action), atr, byref(length))
        return int(code), bytes(atr[: length.value])

    def protocol(self, lun: int, number: int) -> int:
        zero = c_ubyte(0)
        return int(
            self.lib.IFDHSetProtocolParameters(
                c_ulong(lun), c_ulong(number), zero, zero, zero, zero
            )
        )

    def transmit(
        self, lun: int, protocol: int, apdu: bytes, capacity: int = 65548
    ) -> tuple[int, bytes]:
        answer, length = ctypes.create_string_buffer(capacity), c_ulong(capacity)
        code = self.lib.IFDHTransmitToICC(
            c_ulong(lun),
            SendHeader(protocol, 16),
            c_char_p(apdu),
            c_ulong(len(apdu)),
            answer,
            byref(length),
            None,
        )
        return int(code), answer.raw[: length.value]

    def control(self, lun: int, code: int, data: bytes, capacity: int = 300) -> tuple[int, bytes]:
        answer, got = ctypes.create_string_buffer(capacity), c_ulong(99)
        result = self.lib.IFDHControl(
            c_ulong(lun),
            c_ulong(code),
            c_char_p(data),
            c_ulong(len(data)),
            answer,
            c_ulong(capacity),
            byref(got),
        )
        return int(result), answer.raw[: got.value]

    def _function(self, lun: int, tag: int) -> int:
        code, pointer = self.get(lun, tag)
        assert code == 0
        return int.from_bytes(pointer, sys.byteorder)

    def wait(self, lun: int, timeout_ms: int) -> int:
        """Call the function that TAG_IFD_POLLING_THREAD_WITH_TIMEOUT gives."""
        kind = ctypes.CFUNCTYPE(c_long, c_ulong, ctypes.c_int)
        return int(kind(self._function(lun, 0x0FB3))(lun, timeout_ms))

    def stop(self, lun: int) -> int:
        """Call the function that TAG_IFD_STOP_POLLING_THREAD gives."""
        return int(ctypes.CFUNCTYPE(c_long, c_ulong)(self._function(lun, 0x0FB2))(lun))
