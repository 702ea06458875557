"""The bundle that pcscd loads: its Info.plist, its shared object, and the interpreter's path."""

from __future__ import annotations

import importlib.resources
import importlib.util
import os
import plistlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from xml.parsers.expat import ExpatError

from ccid._version import __version__
from ccid.known.quirks import table
from ccid.pcsc.plug import prebuilt

NAME = "ifd-ccid-python.bundle"
IDENTIFIER = "org.ccid-python.ifd"
PLATFORMS = {"linux": ("Linux", "libccid-python.so"), "macos": ("MacOS", "libccid-python.dylib")}
"""For each platform: the folder in Contents, and the shared object in that folder."""
INTERPRETER = "interpreter"
"""The file beside the shared object that holds the path of Python; ``plug.c`` reads it."""
SOURCE = "plug.c"
NO_OPTIONS = "0x0000"
"""The value of ifdDriverOptions in a new bundle."""


class CannotBuild(Exception):
    """The shared object cannot be compiled. The message says what is missing."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A reader that pcscd gives to this driver."""

    vendor_id: int
    product_id: int
    name: str


def known_readers() -> list[Entry]:
    """The readers of the table whose status is ``supported`` or ``should-work``."""
    entries = []
    for file in sorted(table().iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".toml"):
            continue
        vendor_id = int(file.name[:4], 16)
        for product, reader in tomllib.loads(file.read_text("utf-8"))["reader"].items():
            if reader["status"] in ("supported", "should-work"):
                entries.append(Entry(vendor_id, int(product, 16), reader["name"]))
    return sorted(entries)


def merged(entries: Sequence[Entry]) -> list[Entry]:
    """``entries`` sorted, with each id once: the last entry of an id counts."""
    return sorted({(e.vendor_id, e.product_id): e for e in entries}.values())


def info_plist(entries: Sequence[Entry], platform: str, options: str = NO_OPTIONS) -> bytes:
    """The content of Contents/Info.plist. pcscd reads the file line by line, so each value has a
    line of its own.

    Args:
        entries: The readers; with none, pcscd gives the driver no reader.
        platform: ``linux`` or ``macos``.
        options: The value of ifdDriverOptions.
    """
    content = {
        "CFBundleDevelopmentRegion": "English",
        "CFBundleExecutable": PLATFORMS[platform][1],
        "CFBundleIdentifier": IDENTIFIER,
        "CFBundleInfoDictionaryVersion": "6.0",
        "CFBundleName": "CCIDPYTHON",
        "CFBundlePackageType": "BNDL",
        "CFBundleShortVersionString": __version__,
        "CFBundleSignature": "????",
        "CFBundleVersion": __version__,
        "Copyright": "MIT licence",
        "ifdCapabilities": "0x00000000",
        "ifdDriverOptions": options,
        "ifdLogLevel": "0x0003",
        "ifdManufacturerString": "ccid",
        "ifdProductString": "CCID driver in Python",
        "ifdProtocolSupport": "0x00000001",
        "ifdVersionNumber": "0x00000001",
        "ifdVendorID": [f"0x{e.vendor_id:04X}" for e in entries],
        "ifdProductID": [f"0x{e.product_id:04X}" for e in entries],
        "ifdFriendlyName": [e.name for e in entries],
    }
    return plistlib.dumps(content, sort_keys=False)


def is_native(platform: str) -> bool:
    """Whether this machine is of that platform, so that its compiler can make the shared object."""
    return (platform == "macos") == (sys.platform == "darwin")


def plug_source() -> Traversable:
    """The C source of the shared object."""
    return importlib.resources.files("ccid.pcsc.plug").joinpath(SOURCE)


def compilers() -> list[list[str]]:
    """The commands of the C compilers that were found, the best first: that of the variable CC, if
    it is set."""
    named = shlex.split(os.environ.get("CC", ""))
    found = [named] if named else []
    found += [[path] for name in ("cc", "gcc", "clang") if (path := shutil.which(name))]
    if importlib.util.find_spec("ziglang") is not None:
        found.append([sys.executable, "-m", "ziglang", "cc"])
    return found


def compile_plug(to: Path) -> None:
    """Compile the shared object. The variables CPPFLAGS, CFLAGS and LDFLAGS may add options, as in
    a makefile.

    Raises:
        CannotBuild: There is no compiler, or the compiler fails.
    """
    found = compilers()
    if not found:
        raise CannotBuild(
            "there is no C compiler: install one (Debian: apt install gcc libc6-dev), or the "
            "compiler among Python's packages: pip install 'pyccid[driver]'"
        )
    flags = ["-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"]
    if sys.platform == "darwin":
        flags.append("-Wl,-undefined,dynamic_lookup")
    for variable in ("CPPFLAGS", "CFLAGS", "LDFLAGS"):
        flags += shlex.split(os.environ.get(variable, ""))
    with importlib.resources.as_file(plug_source()) as file:
        command = [*found[0], *flags, str(file), "-o", str(to)]
        if sys.platform != "darwin":
            command.append("-ldl")
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotBuild(f"{' '.join(found[0])} fails:\n{done.stderr.strip()}")


def is_managed(dropdir: Path) -> bool:
    """Whether the bundle belongs to a package of the system: its Info.plist is a link then, to a
    file in /etc, and only this file may be changed."""
    return _info_plist_of(dropdir).is_symlink()


def _info_plist_of(dropdir: Path) -> Path:
    return dropdir / NAME / "Contents/Info.plist"


def interpreter(dropdir: Path, platform: str) -> str:
    """The path of the interpreter that runs the driver.

    Raises:
        OSError: There is no bundle, or it names none.
    """
    file = dropdir / NAME / "Contents" / PLATFORMS[platform][0] / INTERPRETER
    return file.read_text("utf-8").strip()


def _options_of(dropdir: Path) -> str:
    """What the bundle that is there has as ifdDriverOptions."""
    try:
        value = plistlib.loads(_info_plist_of(dropdir).read_bytes())["ifdDriverOptions"]
    except (OSError, ValueError, KeyError, TypeError, ExpatError):
        return NO_OPTIONS
    return value if isinstance(value, str) and value else NO_OPTIONS


def name_readers(dropdir: Path, entries: Sequence[Entry], platform: str) -> Path:
    """Have the bundle that is there name these readers, and change nothing else of it.

    Returns:
        The file that was written.

    Raises:
        OSError: The file cannot be written.
    """
    file = Path(os.path.realpath(_info_plist_of(dropdir)))
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".Info.plist-", delete=False) as new:
        try:
            new.write(info_plist(entries, platform, _options_of(dropdir)))
            os.fchmod(new.fileno(), 0o644)
            new.close()
            os.replace(new.name, file)
        except BaseException:
            os.unlink(new.name)
            raise
    return file


def write(dropdir: Path, entries: Sequence[Entry], platform: str, python: str) -> Path:
    """Write the bundle into ``dropdir``; a bundle that is there already is replaced, but keeps its
    ifdDriverOptions. For another platform the bundle has the C source instead of the shared object,
    to be compiled there.

    Returns:
        The folder of the bundle.

    Raises:
        CannotBuild: The shared object cannot be compiled.
        OSError: A file cannot be written.
    """
    dropdir.mkdir(parents=True, exist_ok=True)
    folder, library = PLATFORMS[platform]
    work = Path(tempfile.mkdtemp(prefix=".ifd-ccid-python-", dir=dropdir))
    try:
        code = work / "Contents" / folder
        code.mkdir(parents=True)
        (work / "Contents/Info.plist").write_bytes(
            info_plist(entries, platform, _options_of(dropdir))
        )
        (code / INTERPRETER).write_text(f"{python}\n", "utf-8")
        if is_native(platform):
            if prebuilt.is_wanted():
                prebuilt.copy(code / library)
            else:
                compile_plug(code / library)
        else:
            (code / SOURCE).write_bytes(plug_source().read_bytes())
        for path in (work, *work.rglob("*")):
            is_code = path.is_dir() or path.name == library
            path.chmod(0o755 if is_code else 0o644)
        bundle = dropdir / NAME
        remove(dropdir)
        os.rename(work, bundle)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return bundle


def remove(dropdir: Path) -> bool:
    """Remove the bundle; False if there was no bundle."""
    bundle = dropdir / NAME
    if not bundle.exists():
        return False
    shutil.rmtree(bundle)
    return True
