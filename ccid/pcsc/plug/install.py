"""``ccid-install-driver``: write the bundle that makes pcscd drive readers with this library."""

from __future__ import annotations

import argparse
import os
import plistlib
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.parsers.expat import ExpatError

from ccid._version import __version__
from ccid.errors import CcidError
from ccid.ground.safe_text import printable, printable_lines
from ccid.known.quirks import lookup
from ccid.pcsc.plug import bundle
from ccid.pcsc.plug.bundle import NAME, PLATFORMS, CannotBuild, Entry

SYSTEM_DROPDIRS = {
    "linux": ("/usr/lib/pcsc/drivers", "/usr/lib64/pcsc/drivers", "/usr/local/lib/pcsc/drivers"),
    "macos": ("/usr/local/libexec/SmartCardServices/drivers",),
}
PROGRAMS = ("/usr/sbin/pcscd", "/usr/local/sbin/pcscd", "/usr/bin/pcscd")
HIDDEN = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")
"""Folders that the service of pcscd 2.3 and newer cannot see (ProtectHome, PrivateTmp)."""
UDEV_FILE = "/etc/udev/rules.d/92-ccid-pcscd.rules"


def system_dropdir(platform: str) -> Path:
    """The folder where pcscd looks for drivers."""
    for text in SYSTEM_DROPDIRS[platform]:
        if Path(text).is_dir():
            return Path(text)
    return Path(SYSTEM_DROPDIRS[platform][0])


# What prevents the driver from working --------------------------------------------------------


def troubles(python: str, platform: str, root: str = "/") -> list[str]:
    """What prevents the driver from working, one text each; empty if nothing does.

    Args:
        python: Path of the interpreter for the driver.
        platform: ``linux`` or ``macos``.
        root: Root folder of the file system, for tests.
    """
    found = []
    real = os.path.realpath(python)
    package = os.path.realpath(Path(__file__).parents[2])
    for what, path in (("interpreter", python), ("interpreter", real), ("package", package)):
        for hidden in HIDDEN:
            if path.startswith(f"{hidden}/"):
                found.append(
                    f"the {what} {path} is under {hidden}, which newer services of pcscd do not "
                    f"see: make a virtual environment elsewhere, with an interpreter of the "
                    f"system (python3 -m venv /opt/ccid && /opt/ccid/bin/pip install PYCCID, where "
                    f"PYCCID is pyccid's wheel or its source folder), and run its "
                    f"ccid-install-driver"
                )
                break
    for path in dict.fromkeys((python, real, package)):
        writable = others_may_change(Path(path))
        if writable is not None:
            found.append(
                f"{writable} may be changed by others than root, and pcscd may run it as root: "
                f"chown root: and chmod go-w, or install elsewhere"
            )
    if platform == "linux" and not any(Path(root, p[1:]).exists() for p in PROGRAMS):
        found.append("pcscd is not found: install it (Debian: apt install pcscd)")
    return list(dict.fromkeys(found))


def others_may_change(path: Path) -> Path | None:
    """``path`` or the first folder above ``path`` that a user other than root may write to; None if
    there is no such folder."""
    for place in (path, *path.parents):
        try:
            status = place.stat()
        except OSError:
            continue
        sticky = place.is_dir() and status.st_mode & stat.S_ISVTX
        loose = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky
        if status.st_uid != 0 or loose:
            return place
    return None


def check(dropdir: Path, platform: str) -> list[str]:
    """What is wrong with the bundle in ``dropdir``, one text each; empty if nothing is."""
    contents = dropdir / NAME / "Contents"
    folder, library = PLATFORMS[platform]
    try:
        plist = plistlib.loads((contents / "Info.plist").read_bytes())
        python = bundle.interpreter(dropdir, platform)
    except (OSError, plistlib.InvalidFileException, ExpatError) as error:
        return [f"there is no driver of ours in {dropdir}: {error}"]
    found = troubles(python, platform)
    if not plist.get("ifdVendorID"):
        found.append(
            "the driver names no reader, so pcscd gives it none: run ccid-install-driver "
            "--attached, or with --reader VVVV:PPPP"
        )
    is_managed = bundle.is_managed(dropdir)
    if not is_managed and plist.get("CFBundleVersion") != __version__:
        found.append(
            f"the driver was written by version {plist.get('CFBundleVersion')}, this is "
            f"{__version__}: run ccid-install-driver again"
        )
    if not (contents / folder / library).is_file():
        found.append(f"{contents / folder / library} is missing: run ccid-install-driver again")
    if not os.access(python, os.X_OK):
        found.append(f"{python} cannot be run any more: run ccid-install-driver again")
    else:
        done = subprocess.run(
            [python, "-I", "-c", "import ccid.pcsc.plug.helper, ccid.pcsc.ifd"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            found.append(f"{python} cannot import ccid: {done.stderr.strip().splitlines()[-1]}")
    loose = others_may_change(dropdir / NAME)
    if loose is not None and str(dropdir) in SYSTEM_DROPDIRS[platform]:
        found.append(f"{loose} may be changed by others than root")
    return found


# The command ----------------------------------------------------------------------------------


def _reader(text: str) -> Entry:
    match = re.fullmatch(r"([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})(?::(.+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not VVVV:PPPP or VVVV:PPPP:NAME")
    vendor_id, product_id = int(match[1], 16), int(match[2], 16)
    name = printable(match[3] or lookup(vendor_id, product_id).name or "")
    return Entry(vendor_id, product_id, name or f"CCID reader {text.lower()}")


def _attached() -> Iterator[Entry]:
    from ccid.device.find import list_readers

    for info in list_readers():
        yield Entry(info.vendor_id, info.product_id, info.name)


def udev_rules(entries: Sequence[Entry]) -> str:
    """udev rules for these readers: only root and the group ``pcscd`` may open the readers, for a
    pcscd that runs as that group."""
    lines = [
        f'SUBSYSTEM=="usb", ENV{{DEVTYPE}}=="usb_device", ATTR{{idVendor}}=="{e.vendor_id:04x}", '
        f'ATTR{{idProduct}}=="{e.product_id:04x}", GROUP="pcscd", MODE="0660"'
        for e in entries
    ]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ccid-install-driver",
        description="Write a driver for pcscd: ccid drives the readers that the driver names.",
    )
    add = parser.add_argument
    add("--uninstall", action="store_true", help="remove the driver")
    add("--check", action="store_true", help="say what is wrong with the installed driver")
    add("--udev", action="store_true", help=f"print udev rules for {UDEV_FILE}; write nothing")
    add(
        "--dropdir",
        type=Path,
        metavar="DIR",
        help="write the driver into DIR, not into the folder of pcscd",
    )
    add(
        "--reader",
        type=_reader,
        action="append",
        default=[],
        metavar="VVVV:PPPP[:NAME]",
        help="drive this reader (may be repeated); without it, all readers that ccid knows",
    )
    add("--attached", action="store_true", help="drive the readers that are plugged in now")
    add("--force", action="store_true", help="write the driver even if it cannot work")
    add(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="the interpreter that runs the driver (default: this one)",
    )
    default = "macos" if sys.platform == "darwin" else "linux"
    add("--platform", choices=PLATFORMS, default=default, help="the platform of the files")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _entries(options: argparse.Namespace) -> list[Entry]:
    chosen = [*options.reader, *(_attached() if options.attached else ())]
    if options.reader or options.attached:
        return bundle.merged(chosen)
    return bundle.known_readers()


def _print(what: str, lines: Sequence[str]) -> None:
    for line in lines:
        print(f"{what}: {printable_lines(line)}", file=sys.stderr)


def _uninstall(dropdir: Path, platform: str) -> int:
    if bundle.is_managed(dropdir):
        file = bundle.name_readers(dropdir, (), platform)
        print(f"{file} names no reader any more; the driver belongs to a package of the system")
        return 0
    was_there = bundle.remove(dropdir)
    print(f"{'removed' if was_there else 'there is no'} {dropdir / NAME}")
    return 0


def _of_another(dropdir: Path, platform: str, python: str) -> str:
    """What is wrong if the bundle in ``dropdir`` belongs to a package of the system, and another
    interpreter than that package's runs this command; empty if nothing is."""
    if not bundle.is_managed(dropdir):
        return ""
    theirs = bundle.interpreter(dropdir, platform)
    if os.path.realpath(os.path.dirname(theirs)) == os.path.realpath(os.path.dirname(python)):
        return ""
    return (
        f"{dropdir / NAME} belongs to a package of the system and is run by {theirs}, not by "
        f"{python}: use the command ccid-install-driver of that package, or remove the package"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    dropdir: Path = options.dropdir or system_dropdir(options.platform)
    try:
        if options.uninstall:
            return _uninstall(dropdir, options.platform)
        if options.check:
            wrong = check(dropdir, options.platform)
            _print("trouble", wrong)
            if not wrong:
                print(f"{dropdir / NAME} is in good order")
            return 1 if wrong else 0
        entries = _entries(options)
        if not entries:
            parser.error("no reader is plugged in; name one by --reader VVVV:PPPP")
        if options.udev:
            print(udev_rules(entries), end="")
            return 0
        python = os.path.abspath(options.python)
        wrong = troubles(python, options.platform)
        is_system = options.dropdir is None or str(dropdir) in SYSTEM_DROPDIRS[options.platform]
        if wrong and is_system and not options.force:
            _print("trouble", wrong)
            print("nothing was written; --force writes the driver anyway", file=sys.stderr)
            return 1
        theirs = _of_another(dropdir, options.platform, python)
        if theirs:
            _print("trouble", [theirs])
            return 1
        _print("warning", wrong)
        if bundle.is_managed(dropdir):
            written = bundle.name_readers(dropdir, entries, options.platform)
            python = bundle.interpreter(dropdir, options.platform)
        else:
            written = bundle.write(dropdir, entries, options.platform, python)
    except CannotBuild as error:
        _print("trouble", [str(error)])
        return 1
    except (OSError, CcidError) as error:
        _print("trouble", [str(error)])
        return 1
    print(f"wrote {written}: {len(entries)} readers, run by {python}")
    if not bundle.is_native(options.platform):
        folder, library = PLATFORMS[options.platform]
        print(
            f"to be compiled on {options.platform}, in {written / 'Contents' / folder}: cc -O2 "
            f"-shared -fvisibility=hidden -Wl,-undefined,dynamic_lookup plug.c -o {library}"
        )
    print("restart pcscd: systemctl restart pcscd, or plug the reader in again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
