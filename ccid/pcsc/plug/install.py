"""``ccid-install-driver``: write the bundle that makes pcscd drive readers with this library."""

from __future__ import annotations

import argparse
import os
import plistlib
import re
import stat
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from ccid._version import __version__
from ccid.errors import CcidError
from ccid.ground.safe_text import printable, printable_lines
from ccid.known.quirks import lookup
from ccid.pcsc.plug import bundle
from ccid.pcsc.plug.bundle import NAME, PLATFORMS, CannotBuild, Entry
from ccid.transport import linux
from ccid.transport.access_cures import RELOAD

SYSTEM_DROPDIRS = {
    "linux": ("/usr/lib/pcsc/drivers", "/usr/lib64/pcsc/drivers", "/usr/local/lib/pcsc/drivers"),
    "macos": ("/usr/local/libexec/SmartCardServices/drivers",),
}
PROGRAMS = ("/usr/sbin/pcscd", "/usr/local/sbin/pcscd", "/usr/bin/pcscd")
HIDDEN = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")
"""Folders that the service of pcscd 2.3 and newer cannot see (ProtectHome, PrivateTmp)."""
UDEV_FILE = "/etc/udev/rules.d/92-ccid-pcscd.rules"
RESTART = (
    "restart pcscd, which reads its drivers only when it starts: systemctl restart pcscd.service"
)
IMPORTS = (
    "import ccid.pcsc.plug.helper, ccid.pcsc.ifd, ccid.transport.discovery; "
    "from ccid.transport.libusb import backend; backend()"
)
"""The program that loads the driver, and libusb."""


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
    if platform == "linux":
        found += _closed_to_pcscd((Path(python), Path(package, "__init__.py")), Path(root))
    if platform == "linux" and not any(Path(root, p[1:]).exists() for p in PROGRAMS):
        found.append("pcscd is not found: install it (Debian: apt install pcscd)")
    return list(dict.fromkeys(found))


def _closed_to_pcscd(files: Sequence[Path], root: Path) -> Iterator[str]:
    """Which of these files the user who runs pcscd cannot use, one text each. Folders that the
    service does not see at all (:data:`HIDDEN`) are another trouble."""
    from ccid.pcsc.plug.pcscd_account import obstacle, pcscd_account

    account = pcscd_account(root)
    if account is None:
        return
    for file in files:
        wanted = "r" if file.suffix else "x"
        place = obstacle(account, file, wanted)
        if place is None or any(map(place.is_relative_to, HIDDEN)):
            continue
        verb = "enter" if place.is_dir() else "read" if wanted == "r" else "run"
        yield (
            f"pcscd runs as the user {account.name}, who may not {verb} {place} "
            f"({linux.permissions(place)}): {_opening(file, place)}"
        )


def _opening(file: Path, place: Path) -> str:
    """The command that opens ``place``, on the way to ``file``, to all users. In a virtual
    environment all is opened: under a strict umask pip closes all that it writes."""
    for folder in file.parents:
        if (folder / "pyvenv.cfg").exists() and place.is_relative_to(folder):
            return f"chmod -R go+rX {folder}"
    return f"chmod go+{'x' if place.is_dir() else 'rx'} {place}"


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
    except FileNotFoundError:
        cure = "run ccid-install-driver --attached, or with --reader VVVV:PPPP"
        return [f"there is no driver of ours in {dropdir}: {cure}"]
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
    elif wrong := _import_trouble(python, is_closed=bool(found)):
        found.append(wrong)
    if platform == "linux":
        found += closed_readers(_named_in(plist))
    loose = others_may_change(dropdir / NAME)
    if loose is not None and str(dropdir) in SYSTEM_DROPDIRS[platform]:
        found.append(f"{loose} may be changed by others than root")
    return found


def _import_trouble(python: str, is_closed: bool) -> str:
    """Why ``python`` cannot load the driver; empty if it can.

    Args:
        python: Path of the interpreter.
        is_closed: It is known already that pcscd's user cannot: do not try as that user.
    """
    from ccid.pcsc.plug.pcscd_account import pcscd_account, run_as

    command = [python, "-I", "-c", IMPORTS]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    who = ""
    account = None if done.returncode or is_closed else pcscd_account()
    if account is not None and (tried := run_as(account, command)) is not None:
        done, who = tried, f", as pcscd's user {account.name},"
    if not done.returncode:
        return ""
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return f"{python}{who} cannot load the driver: {last}"


def _named_in(plist: dict[str, Any]) -> set[tuple[int, int]]:
    """The ids of the readers that a bundle names."""
    with suppress(KeyError, ValueError, TypeError):
        pairs = zip(plist["ifdVendorID"], plist["ifdProductID"], strict=True)
        return {(int(vendor_id, 16), int(product_id, 16)) for vendor_id, product_id in pairs}
    return set()


def closed_readers(named: Collection[tuple[int, int]], root: Path = linux.ROOT) -> list[str]:
    """Which readers are plugged in, are the driver's, and cannot be opened by the user who runs
    pcscd, one text each.

    Args:
        named: idVendor and idProduct of the readers that the driver drives.
        root: Root folder of the file system, for tests.
    """
    from ccid.device import find
    from ccid.pcsc.plug.pcscd_account import obstacle, pcscd_account

    account = pcscd_account(root)
    if account is None:
        return []
    found = []
    with suppress(CcidError):  # without libusb nothing is plugged in, as far as is known
        for info in find.list_readers():
            node = linux.node(info.bus, info.address, root)
            if (info.vendor_id, info.product_id) not in named or not info.bus:
                continue
            if node.exists() and obstacle(account, node, "rw") is not None:
                found.append(
                    f"{info.name}: pcscd runs as the user {account.name}, who may not open {node} "
                    f"({linux.permissions(node)}): ccid-install-driver --udev --reader {info.id} "
                    f">>{UDEV_FILE}, {RELOAD}"
                )
    return list(dict.fromkeys(found))


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

    for info in list_readers():  # info.name tells equal readers apart; pcscd does that itself
        yield Entry(info.vendor_id, info.product_id, info.model)


def udev_rules(entries: Sequence[Entry], group: str = "pcscd") -> str:
    """udev rules for these readers: only root and ``group`` may open the readers, for a pcscd that
    runs as that group."""
    lines = [
        f'SUBSYSTEM=="usb", ENV{{DEVTYPE}}=="usb_device", ATTR{{idVendor}}=="{e.vendor_id:04x}", '
        f'ATTR{{idProduct}}=="{e.product_id:04x}", GROUP="{group}", MODE="0660"'
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
        print(RESTART)
        return 0
    was_there = bundle.remove(dropdir)
    print(f"{'removed' if was_there else 'there is no'} {dropdir / NAME}")
    if was_there:
        print(RESTART)
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


def _print_rules(entries: Sequence[Entry]) -> None:
    from ccid.pcsc.plug.pcscd_account import pcscd_account

    account = pcscd_account()
    if account is None:
        note = "pcscd runs as root on this machine, as far as is known, and needs no rule"
        _print("note", [note])
        print(udev_rules(entries), end="")
    else:
        print(udev_rules(entries, account.group), end="")


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
            _print_rules(entries)
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
    if options.platform == "linux":
        _print("warning", closed_readers({(e.vendor_id, e.product_id) for e in entries}))
    print(RESTART)
    return 0


if __name__ == "__main__":
    sys.exit(main())
