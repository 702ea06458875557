"""Which command installs what a program of PC/SC needs; pure."""

from __future__ import annotations

INSTALLERS = {
    "debian": "apt install",
    "ubuntu": "apt install",
    "fedora": "dnf install",
    "rhel": "dnf install",
    "centos": "dnf install",
    "opensuse": "zypper install",
    "suse": "zypper install",
    "arch": "pacman -S",
    "alpine": "apk add",
    "gentoo": "emerge",
    "void": "xbps-install",
}
"""By ID and ID_LIKE of os-release(5)."""

LIBRARY = {
    "apt install": "libpcsclite1",
    "dnf install": "pcsc-lite-libs",
    "zypper install": "libpcsclite1",
    "pacman -S": "pcsclite",
    "apk add": "pcsc-lite-libs",
    "emerge": "sys-apps/pcsc-lite",
    "xbps-install": "pcsclite",
}
"""The package with libpcsclite.so.1."""

PROGRAMS = {
    **dict.fromkeys(
        (
            *("opensc-tool", "opensc-explorer", "pkcs11-tool", "pkcs15-tool", "pkcs15-init"),
            *("piv-tool", "openpgp-tool", "cardos-tool", "eidenv", "iasecc-tool"),
        ),
        "opensc",
    ),
    **dict.fromkeys(("pcsc_scan", "ATR_analysis", "scriptor", "gscriptor"), "pcsc-tools"),
    "ykman": "yubikey-manager",
}
"""The packages of programs; Gentoo has a category before them."""
CATEGORIES = {"opensc": "dev-libs/", "pcsc-tools": "sys-apps/", "yubikey-manager": "app-crypt/"}


def _installer(os_release: str) -> str | None:
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    words = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    return next((INSTALLERS[word] for word in words if word in INSTALLERS), None)


def library_hint(os_release: str) -> str:
    """How to get libpcsclite, which a program needs to ask any PC/SC service.

    Args:
        os_release: What ``/etc/os-release`` says.
    """
    installer = _installer(os_release)
    if installer is None:
        return "the package with libpcsclite.so.1 (libpcsclite1, pcsc-lite-libs or pcsclite)"
    return f"{installer} {LIBRARY[installer]}"


def program_hint(program: str, os_release: str) -> str | None:
    """How to get a program; None where that is not known.

    Args:
        program: Its name.
        os_release: What ``/etc/os-release`` says.
    """
    package = PROGRAMS.get(program)
    if package is None:
        return None
    installer = _installer(os_release)
    if installer is None:
        return f"the package {package}"
    return f"{installer} {CATEGORIES[package] if installer == 'emerge' else ''}{package}"
