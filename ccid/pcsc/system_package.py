"""What a distribution's package has beside the library: the driver for pcscd, udev rules, units.

    python3 -m ccid.pcsc.system_package --destdir debian/tmp --python /usr/bin/python3

The driver names no reader: pcscd asks any driver that names a reader before libccid, so a package
that named some would take them away from libccid without being asked. Info.plist is a link to a
file in /etc, where ``ccid-install-driver`` of the same package names readers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ccid._version import __version__
from ccid.codes import CLASS_SMART_CARD
from ccid.known.descriptor_figures import figures
from ccid.pcsc.plug import bundle
from ccid.pcsc.service import user_units

DROPDIR = "/usr/lib/pcsc/drivers"
SETTINGS = "/etc/pyccid-driver/Info.plist"
"""The file of the administrator to which the bundle's Info.plist is a link."""
TEMPLATE = "/usr/share/pyccid-driver/Info.plist"
"""What is there at first."""
RULES = "/usr/lib/udev/rules.d"
GROUP_RULES, SEAT_RULES = "92-ccid-pcscd.rules", "70-ccid.rules"
"""Files of the same names in /etc/udev/rules.d, as ``ccid-install-driver --udev`` and ``ccid-probe
doctor`` advise, take their place."""
UNITS = "/usr/lib/systemd/user"

GROUP_TEXT = """\
# Smart-card readers for a pcscd that is not root (pcsc-lite 2.4 and newer): its group is pcscd.
"""
SEAT_TEXT = """\
# Smart-card readers for the user who sits at the machine, without pcscd.
"""


def matches() -> Iterator[str]:
    """The conditions of udev rules that are true of smart-card readers: of the class (CCID and
    ICCD), and of known readers that declare another class."""
    device = 'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device"'
    yield f'{device}, ENV{{ID_USB_INTERFACES}}=="*:{CLASS_SMART_CARD:02x}????:*"'
    for entry in bundle.known_readers():
        devices = figures(entry.vendor_id, entry.product_id)
        classes = {i.reader.interface.bInterfaceClass for d in devices for i in d.interfaces}
        if classes - {CLASS_SMART_CARD}:
            yield (
                f'{device}, ATTR{{idVendor}}=="{entry.vendor_id:04x}", '
                f'ATTR{{idProduct}}=="{entry.product_id:04x}"'
            )


def rules(comment: str, effect: str) -> str:
    """A file of udev rules: ``effect`` for each of :func:`matches`."""
    return comment + "".join(f"{match}, {effect}\n" for match in matches())


def write(destdir: Path, python: str, dropdir: str = DROPDIR) -> None:
    """Write all files of the package.

    Args:
        destdir: The folder that stands for ``/``.
        python: Path of the interpreter that will run the driver and, beside it, ``ccid-pcscd``.
        dropdir: Where pcscd will look for drivers (``pkg-config --variable=usbdropdir
            libpcsclite``).

    Raises:
        CannotBuild: The shared object cannot be compiled.
        OSError: A file cannot be written.
    """

    def file(path: str) -> Path:
        place = destdir / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    driver = bundle.write(file(dropdir), (), "linux", python)
    plist = driver / "Contents/Info.plist"
    shutil.move(plist, file(TEMPLATE))
    plist.symlink_to(SETTINGS)
    group = rules(GROUP_TEXT, 'GROUP="pcscd", MODE="0660"')
    file(f"{RULES}/{GROUP_RULES}").write_text(group, "utf-8")
    file(f"{RULES}/{SEAT_RULES}").write_text(rules(SEAT_TEXT, 'TAG+="uaccess"'), "utf-8")
    service = os.path.join(os.path.dirname(python), user_units.NAME)
    for name, text in user_units.units(starts=service).items():
        file(f"{UNITS}/{name}").write_text(text, "utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python3 -m ccid.pcsc.system_package",
        description="Write what a distribution's package has beside the library.",
    )
    add = parser.add_argument
    add("--destdir", type=Path, required=True, metavar="DIR", help="what stands for /")
    add("--python", required=True, metavar="PATH", help="the interpreter of the installed package")
    add("--dropdir", default=DROPDIR, metavar="DIR", help=f"of pcscd (default: {DROPDIR})")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    options = parser.parse_args(argv)
    try:
        write(options.destdir, options.python, options.dropdir)
    except (bundle.CannotBuild, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
