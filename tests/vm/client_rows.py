"""PC/SC clients from Debian: what is run, and which parts of the output may differ. Whoever runs
them is :mod:`tests.vm.clients` in the guest, or ``tests/integration/test_run_clients.py``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MODULE = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"
PKCS11 = "pkcs11-tool --token-label 'Lab card 1'"
CURVES = " ".join(
    f"'SCD SETATTR KEY-ATTR --force {key} {algorithm} {curve}'"
    for key, algorithm, curve in ((1, 22, "ed25519"), (2, 18, "cv25519"), (3, 22, "ed25519"))
)
EXAMPLES = "/usr/share/doc/python3-pyscard/examples"
PKCS11_EXAMPLES = "/usr/share/doc/python3-pykcs11/examples"
PINENTRY = """#!/bin/sh
echo OK
while read -r word rest; do
    case $word in
        SETPROMPT) case $rest in *Admin*) pin=12345678 ;; *) pin=123456 ;; esac; echo OK ;;
        GETPIN) echo "D $pin"; echo OK ;;
        BYE) echo OK; exit ;;
        *) echo OK ;;
    esac
done
"""
"""The program that gpg-agent asks for a PIN. It gives the PINs of a new card."""
ANSWERS = "admin\ngenerate\nn\n0\nLab card\nlab@example.org\n\nquit\n"
"""Answers for --card-edit: no backup, no expiry, a name, an address, no comment."""
QEMU_ECHO, QEMU_CAC, OURS = "QEMU's, echo card", "QEMU's, CAC", "ours over USB/IP, OpenPGP card"
ALL = "all three"


@dataclass(frozen=True)
class Variation:
    """Output that differs from run to run, each way.

    Attributes:
        pattern: Regular expression of the output that differs.
        by: The text that replaces it.
        why: The reason of the difference.
    """

    pattern: str
    by: str
    why: str


VARIES = (
    Variation(r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d (\w+ )?\d{4}", "TIME", "the time"),
    Variation(r"\b\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?", "TIME", "the time"),
    Variation(r"(?<=Data object )\d+|(?<=Profile object )\d+", "ADDRESS", "an address in memory"),
    Variation(
        r"\b[0-9A-F]{40}\b|\b[0-9A-F]{16}\b|\b([0-9A-F]{4} +){9}[0-9A-F]{4}\b",
        "KEY",
        "each run has the OpenPGP card make keys of its own",
    ),
    Variation(
        r"(?s)(CHANNEL_ID -+\n).*?(?=\n---)",
        r"\1ADDRESS",
        "the USB address of our reader, which is attached anew each time",
    ),
    Variation(
        r"\nTIME\n.*lab0.*\n  Event number: 3\n  Card state: Card removed, ?\n(?=Scanning)",
        "",
        "`pcsc_scan` when a reader is pulled out: on a busy machine *Card removed* may come before "
        "pcscd hears that the reader went",
    ),
    Variation(r"(?s)(Scanning(?!.*Scanning).*?Event number: )[23]", r"\1N", ""),
    Variation(
        r"Traceback [^\n]*\n(  [^\n]*\n)*?  [^\n]* in waitforcardevent\n(  [^\n]*\n)*"
        r"smartcard\.Exceptions\.CardRequestTimeoutException: [^\n]*\n",
        "",
        "pyscard's `CardMonitor`, when a reader goes after pyscard asked for the readers' names "
        "and before it asks for their states, prints its own time-out and goes on",
    ),
)
WITHOUT_PCSCD = (
    Variation(
        r"(?s)(Scanning(?!.*Scanning).*?lab0[^\n]*\n  Event number: )0",
        r"\1N",
        "`pcsc_scan`, when a reader came back: Debian 12's pcscd goes on counting its events; our "
        "service begins at 0, as pcscd does since 2.0",
    ),
)
"""Output that is another without pcscd."""


@dataclass(frozen=True)
class Client:
    """A row of the table.

    Attributes:
        package: Debian's package.
        does: The program, and its use here.
        where: The readers that the program uses.
        commands: Commands for a shell; each must have the status 0.
        is_shown: True if the output is on the page, not only in the table.
    """

    package: str
    does: str
    where: str
    commands: tuple[str, ...] = ()
    is_shown: bool = True


CLIENTS = {
    "opensc": Client(
        "opensc",
        "`opensc-tool`: readers, ATR, name of the card, APDUs",
        ALL,
        (
            "opensc-tool --list-readers",
            "opensc-tool --reader 1 --atr --name",
            "opensc-tool --reader 0 --atr --send-apdu 0010000020",
            "opensc-tool --reader 2 --atr",
        ),
    ),
    "pkcs11-list": Client(
        "opensc",
        "`pkcs11-tool`: objects, after the PIN",
        QEMU_CAC,
        (f"{PKCS11} --list-objects --login --pin 1234",),
    ),
    "pkcs11-sign": Client(
        "opensc",
        "`pkcs11-tool`: a signature, verified by `openssl` with the card's certificate",
        QEMU_CAC,
        (
            "echo 'to be signed' >text",
            f"{PKCS11} --id 0001 --login --pin 1234 --sign -m SHA256-RSA-PKCS -i text -o signature",
            f"{PKCS11} --id 0001 --read-object --type cert -o cert",
            "openssl x509 -inform der -in cert -pubkey -noout >key",
            "openssl dgst -sha256 -verify key -signature signature text",
        ),
    ),
    "pykcs11": Client(
        "python3-pykcs11",
        "its example `signature.py`: signs and verifies through opensc-pkcs11.so",
        QEMU_CAC,
        (f"PYKCS11LIB={MODULE} python3 {PKCS11_EXAMPLES}/signature.py",),
    ),
    "gpg-status": Client(
        "scdaemon",
        "`gpg --card-status`",
        OURS,
        ("cat $GNUPGHOME/scdaemon.conf", "gpg --card-status"),
    ),
    "gpg-keys": Client(
        "scdaemon",
        "`gpg`: keys generated on the card",
        OURS,
        (
            f"gpg-connect-agent 'SCD SERIALNO' {CURVES} /bye",
            "gpg --command-fd 0 --card-edit <answers",
            "gpg --card-status",
        ),
    ),
    "gpg-sign": Client(
        "scdaemon",
        "`gpg`: signs, verifies, encrypts, decrypts with them",
        OURS,
        (
            "gpg --clearsign <text >signed",
            "gpg --verify signed",
            "gpg --encrypt --recipient lab@example.org <text >secret",
            "gpg --decrypt secret",
        ),
    ),
}
"""The clients that a shell runs; those with ``gpg-…`` in this order."""
PROGRAMS = {
    "simple/getATR.py": True,
    "simple/getATR_context.py": False,
    "simple/selectDF_TELECOM.py": True,
    "scard-api/sample_control.py": False,
    "scard-api/sample_getATR.py": False,
    "scard-api/sample_getAttrib.py": False,
    "scard-api/sample_readerGroups.py": False,
    "scard-api/sample_readers.py": False,
    "scard-api/sample_selectDFTelecom.py": False,
    "scard-api/sample_transaction.py": True,
    "framework/sample_CardConnectionDecorator.py": False,
    "framework/sample_ConsoleConnectionTracer.py": False,
    "framework/sample_CustomCardType.py": False,
    "framework/sample_CustomErrorChecker.py": False,
    "framework/sample_ErrorChecking.py": False,
    "framework/sample_ExclusiveCardConnection.py": False,
    "framework/sample_apduTracerInterpreter.py": False,
}
"""pyscard's examples that use a card, and whether the page shows their output. simpleAPDU.py is
missing: the APDU that it sends makes the echo card compute for 160 seconds."""
WATCHERS = {
    "pcsc_scan": Client("pcsc-tools", "`pcsc_scan`", ALL),
    "framework/sample_MonitorCards.py": Client("python3-pyscard", "`CardMonitor`", ALL),
    "framework/sample_MonitorReaders.py": Client("python3-pyscard", "`ReaderMonitor`", ALL),
    "scard-api/sample_getStatusChange.py": Client(
        "python3-pyscard", "`SCardGetStatusChange`", ALL, is_shown=False
    ),
}
"""Programs that run together while the echo card, and then its reader, is taken out and put
back."""
ENDLESS = ("framework/sample_MonitorCards.py", "framework/sample_MonitorReaders.py")
"""Programs that run until they are ended."""


def rows() -> dict[str, Client]:
    """All clients, by name, in the order of the table."""
    examples = {
        name: Client("python3-pyscard", f"its example `{Path(name).name}`", ALL, is_shown=shown)
        for name, shown in PROGRAMS.items()
    }
    return {**WATCHERS, **examples, **CLIENTS}


OF_THE_MACHINE = (
    Variation(r"(?<=signature: b')[0-9a-f]+", "SIGNATURE", "each machine makes the CAC's keys"),
)
"""Output that differs from machine to machine, too."""


def normal(text: str, variations: tuple[Variation, ...] = VARIES) -> str:
    """``text`` without the parts that may differ."""
    for variation in variations:
        text = re.sub(variation.pattern, variation.by, text)
    return text


def script(client: Client) -> str:
    """The commands for a shell, which prints each, as a terminal shows it."""
    lines = ["exec 2>&1", "set -e"]
    for command in client.commands:
        quoted = f"$ {command}".replace("'", "'\\''")
        lines += [f"echo '{quoted}'", command]
    return "\n".join(lines)


def gnupg_files(folder: str) -> dict[str, str]:
    """By path: what GnuPG reads, with ``gnupg`` in ``folder`` as its home, and the answers."""
    pinentry = f"{folder}/gnupg/pinentry"
    return {
        pinentry: PINENTRY,
        f"{folder}/gnupg/gpg-agent.conf": f"pinentry-program {pinentry}\n",
        f"{folder}/gnupg/scdaemon.conf": "disable-ccid\nreader-port Gemalto PC Twin\n",
        f"{folder}/gnupg/gpg.conf": "no-tty\nquiet\n",
        f"{folder}/answers": ANSWERS,
    }
