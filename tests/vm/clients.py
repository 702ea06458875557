"""PC/SC clients from Debian, and the output of each with libccid and with our driver.

``compare`` runs the clients in the guest, on the same three readers with either driver; ``page``
makes docs/clients.md from the output (``tools/clients-page``); ``tests/vm/test_clients.py``
compares the output.

The readers have the same names with both drivers, so only the parts of the output that ``VARIES``
names are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.guest import Guest
from lab.link import Job
from lab.pcscd import pcscd

from ccid.pcsc.plug.bundle import NAME
from tests.vm.attach import attach
from tests.vm.programs import DROPDIR, make_bundle
from tests.vm.test_qemu_reader import PRELOAD

ROOT = Path(__file__).parents[2]
PORT = 3249
START_S = 120.0
LAB = (0, 2)
"""The readers of QEMU that are plugged in: one with our echo card, one with libcacard's CAC."""
FOLDER = "/run/clients"
MODULE = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"
PKCS11 = "pkcs11-tool --token-label 'Lab card 1'"
CURVES = " ".join(
    f"'SCD SETATTR KEY-ATTR --force {key} {algorithm} {curve}'"
    for key, algorithm, curve in ((1, 22, "ed25519"), (2, 18, "cv25519"), (3, 22, "ed25519"))
)
EXAMPLES = "/usr/share/doc/python3-pyscard/examples"
PKCS11_EXAMPLES = "/usr/share/doc/python3-pykcs11/examples"
SERVER = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    "from tests.vm.openpgp_server import main; main(int(sys.argv[1]), sys.argv[2])"
)
RUNNER = (ROOT / "tests/vm/client_runner.py").read_text()
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
    """Output that differs from run to run, with either driver.

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
        "the USB address of our reader, which is attached anew for each driver",
    ),
    Variation(
        r"\nTIME\n.*lab0.*\n  Event number: 3\n  Card state: Card removed, ?\n(?=Scanning)",
        "",
        "`pcsc_scan` when a reader is pulled out: on a busy machine *Card removed* may come before "
        "pcscd hears that the reader went",
    ),
    Variation(r"(?s)(Scanning(?!.*Scanning).*?Event number: )[23]", r"\1N", ""),
)


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


# Running the clients --------------------------------------------------------------------------


@contextmanager
def openpgp_card(guest: Guest, folder: str) -> Iterator[None]:
    """Our reader over USB/IP with a new OpenPGP card."""
    with guest.popen_script(SERVER, str(PORT), folder, preload=(*PRELOAD, "jcecard.main")) as job:
        job.wait_for(r"serving \d+", 90)
        attach(guest, "1-1", PORT)
        there = "grep -lsx ccid /sys/bus/usb/devices/*/manufacturer"
        wait = "i=0; until {0}{1} || [ $i -gt 100 ]; do i=$((i+1)); sleep 0.1; done; "
        guest.run(wait.format(there, "") + "udevadm settle", check=True)
        yield
    guest.run(wait.format("! ", there))


@contextmanager
def daemon(guest: Guest, bundle: Path | None) -> Iterator[None]:
    """pcscd, with libccid or with our driver, and the three readers."""
    guest.leave_only(*LAB)
    own = f"{DROPDIR}/{NAME}"
    if bundle is not None:
        guest.run(["cp", "-r", str(bundle), own], check=True)
    try:
        with pcscd(guest, len(LAB) + 1, timeout=START_S):
            helpers = guest.run("pgrep -fc '[c]cid.pcsc.plug.helper'").stdout.strip()
            if int(helpers) != (len(LAB) + 1 if bundle is not None else 0):
                raise LabError(f"{helpers} of our driver's processes run")
            yield
    finally:
        guest.run(["rm", "-rf", own], check=True)


def shell(guest: Guest, client: Client) -> str:
    """The commands and their output, as in a terminal."""
    lines = ["set -e"]
    for command in client.commands:
        quoted = f"$ {command}".replace("'", "'\\''")
        lines += [f"echo '{quoted}'", command]
    settings = {"GNUPGHOME": f"{FOLDER}/gnupg", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    script = "exec 2>&1\n" + "\n".join(lines)
    done = guest.run(script, cwd=FOLDER, env=settings, timeout=200)
    if done.returncode:
        raise LabError(f"{client.does}: {done.stdout}")
    return done.stdout


def set_up(guest: Guest) -> None:
    """A folder with the files that the commands read."""
    guest.run(f"rm -rf {FOLDER}; mkdir -p -m 700 {FOLDER}/gnupg", check=True)
    pinentry = f"{FOLDER}/gnupg/pinentry"
    for path, text in {
        pinentry: PINENTRY,
        f"{FOLDER}/gnupg/gpg-agent.conf": f"pinentry-program {pinentry}\n",
        f"{FOLDER}/gnupg/scdaemon.conf": "disable-ccid\nreader-port Gemalto PC Twin\n",
        f"{FOLDER}/gnupg/gpg.conf": "no-tty\nquiet\n",
        f"{FOLDER}/answers": ANSWERS,
    }.items():
        guest.run(f"cat >{path}", input=text, check=True)
    fifos = " ".join(Path(name).stem for name in ENDLESS)
    guest.run(f"chmod 755 {pinentry}; cd {FOLDER}; mkfifo {fifos}", check=True)


def examples(guest: Guest) -> dict[str, str]:
    """pyscard's examples, one after the other."""
    paths = [f"{EXAMPLES}/{name}" for name in PROGRAMS]
    command = ["/usr/bin/python3", "-c", RUNNER, "none", *paths]
    done = guest.run(command, timeout=200)
    parts = re.split(r"^(?=\$ python3 )", done.stdout, flags=re.MULTILINE)[1:]
    if done.returncode or len(parts) != len(PROGRAMS):
        raise LabError(f"pyscard's examples: {done.stderr}{done.stdout[-2000:]}")
    return dict(zip(PROGRAMS, parts, strict=True))


def watchers(guest: Guest) -> dict[str, str]:
    """The programs that watch, while the echo card and its reader come and go."""
    reader = guest.readers[LAB[0]]
    with ExitStack() as stack:
        jobs: dict[str, Job] = {"pcsc_scan": stack.enter_context(guest.popen(["pcsc_scan", "-n"]))}
        for name in list(WATCHERS)[1:]:
            fifo = f"{FOLDER}/{Path(name).stem}"
            command = ["/usr/bin/python3", "-uc", RUNNER, fifo, f"{EXAMPLES}/{name}"]
            jobs[name] = stack.enter_context(guest.popen(command))
        scan, cards, readers, change = jobs.values()
        scan.wait_for(r"(?s)(Reader \d.*?Card inserted.*?){3}", 60)
        cards.wait_for(r"(?s)(Inserted.*){3}", 60)
        readers.wait_for("Added", 60)
        change.wait_for("Please insert", 60)
        reader.card_out()
        scan.wait_for("lab0.*\n.*\n.*Card removed", 60)
        cards.wait_for("Removed", 60)
        change.wait(60)
        reader.card_in()
        scan.wait_for(r"(?s)Card removed.*lab0[^\n]*\n[^\n]*\n[^\n]*Card inserted", 60)
        cards.wait_for(r"(?s)(Inserted.*){4}", 60)
        reader.unplug()
        readers.wait_for("Removed readers .*lab0", 60)
        scan.wait_for(r"(?s)(Scanning.*){2}lab2.*(Card inserted.*){2}", 60)
        cards.wait_for(r"(?s)(Removed.*){2}", 60)
        reader.plug()
        readers.wait_for("(?s)Removed readers [^\n]*lab0.*Added readers [^\n]*lab0", 60)
        scan.wait_for(r"(?s)(Scanning.*){3}(ATR: [^\n]*\n.*){3}", 60)
        cards.wait_for(r"(?s)(Inserted.*){5}", 60)
        for name in ENDLESS:
            guest.run(f"echo >{FOLDER}/{Path(name).stem}", check=True)
            jobs[name].wait(60)
        said = {name: job.stdout for name, job in jobs.items()}
    still = re.sub(r"\r *[-\\|/]? *", "", said["pcsc_scan"])  # a spinner
    return said | {"pcsc_scan": "$ pcsc_scan -n\n" + still}


def run_all(guest: Guest, bundle: Path | None) -> dict[str, str]:
    """The output of each client: with our driver if ``bundle`` is given, else with libccid."""
    set_up(guest)
    with openpgp_card(guest, f"{FOLDER}/card"), daemon(guest, bundle):
        said = examples(guest)
        for name, client in CLIENTS.items():
            said[name] = shell(guest, client)
        guest.run(["gpgconf", "--kill", "all"], env={"GNUPGHOME": f"{FOLDER}/gnupg"})
        said |= watchers(guest)
    return said


def compare(guest: Guest, folder: Path) -> dict[str, tuple[str, str]]:
    """By name: the output of a client with libccid, and with our driver.

    Args:
        guest: The guest.
        folder: The folder for the bundle.

    Raises:
        LabError: A client failed.
    """
    made = make_bundle(guest, folder, ["08e6:4433", "08e6:3437"])
    theirs = run_all(guest, None)
    own = run_all(guest, made)
    return {name: (theirs[name], own[name]) for name in rows()}


# The page -------------------------------------------------------------------------------------

HEAD = """\
# Programs that use our driver

<!-- Made by tools/clients-page, from what the programs print in the lab's guest. -->

Debian's programs, unchanged, through Debian's pcscd: each was run twice on the same readers, with
libccid as the driver and with ours. Three readers are plugged in: QEMU's with our echo card in it,
QEMU's with libcacard's CAC, and our virtual reader, a real USB device by USB/IP, with an OpenPGP
card (jcecard's) in it. *Same* means the whole output, but for what is named below the table. While
the first four ran, the echo card was taken out and put in, then its reader. GnuPG asks a
`pinentry` that knows the card's PINs. `tests/vm/test_clients.py` does it all again.

| Package | Program | Readers | libccid / ours |
|---|---|---|---|
"""


def same(pair: tuple[str, str]) -> bool:
    """True if both outputs are equal, except for the parts that may differ."""
    return normal(pair[0]) == normal(pair[1])


def page(said: Mapping[str, tuple[str, str]]) -> str:
    """docs/clients.md."""
    lines = [HEAD.rstrip("\n")]
    for name, client in rows().items():
        verdict = "same" if same(said[name]) else "**different**"
        lines.append(f"| {client.package} | {client.does} | {client.where} | {verdict} |")
    by_run = dict.fromkeys(variation.why for variation in VARIES if variation.why)
    lines += ["", "What differs from run to run, with the same driver, too:", ""]
    lines += [f"- {why}" for why in by_run]
    lines += ["", "What they print with our driver:"]
    for name, client in rows().items():
        if client.is_shown:
            text = re.sub(r"[ \t]+$", "", said[name][1], flags=re.MULTILINE).strip("\n")
            lines += ["", f"## {client.does[:1].upper()}{client.does[1:]}"]
            lines += ["", f"```console\n{text}\n```"]
    return "\n".join(lines) + "\n"


def is_current(old: str, new: str) -> bool:
    """True if the page is equal to the output of a run on this machine."""
    allowed = (*VARIES, *OF_THE_MACHINE)
    return normal(old, allowed) == normal(new, allowed)
