"""PC/SC clients from Debian, and the output of each in three ways: pcscd with libccid, pcscd with
our driver, and our service in pcscd's place.

``compare`` runs the clients in the guest, on the same three readers each way; ``page`` makes
docs/clients.md from the output (``tools/clients-page``); ``tests/vm/test_clients.py`` compares the
output.

The readers have the same names each way, so only the parts of the output that ``VARIES`` names are
replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from lab.errors import LabError
from lab.guest import Guest
from lab.link import Job
from lab.pcscd import pcscd
from lab.readers import LabReader

from ccid.pcsc.plug.bundle import NAME
from tests.vm.attach import attach
from tests.vm.client_rows import (
    CLIENTS,
    ENDLESS,
    EXAMPLES,
    OF_THE_MACHINE,
    PROGRAMS,
    VARIES,
    WATCHERS,
    WITHOUT_PCSCD,
    Client,
    gnupg_files,
    normal,
    rows,
    script,
)
from tests.vm.modern import Service
from tests.vm.programs import DROPDIR, make_bundle
from tests.vm.test_qemu_reader import PRELOAD

ROOT = Path(__file__).parents[2]
PORT = 3249
START_S, WAIT_S, RUN_S = 120.0, 180.0, 600.0
"""Longest times in s, for a busy machine: until something runs, until a program prints what it has
seen, until programs have ended."""
LAB = (0, 2)
"""The readers of QEMU that are plugged in: one with our echo card, one with libcacard's CAC."""
FOLDER = "/run/clients"
SERVER = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    "from tests.vm.openpgp_server import main; main(int(sys.argv[1]), sys.argv[2])"
)
SOCKET = "/run/clients.comm"
# pcscd's drivers, too, take Escape commands only if the machine's owner says so
OPTIONS = ("--socket", SOCKET, "--ready-fd", "1", "--no-escape")
SERVICE = "import sys; from ccid.pcsc.service.__main__ import main; sys.exit(main(sys.argv[1:]))"
RUNNER = (ROOT / "tests/vm/client_runner.py").read_text()


# Running the clients --------------------------------------------------------------------------


@contextmanager
def openpgp_card(guest: Guest, folder: str) -> Iterator[None]:
    """Our reader over USB/IP with a new OpenPGP card."""
    with guest.popen_script(SERVER, str(PORT), folder, preload=(*PRELOAD, "jcecard.main")) as job:
        job.wait_for(r"serving \d+", START_S)
        attach(guest, "1-1", PORT)
        there = "grep -lsx ccid /sys/bus/usb/devices/*/manufacturer"
        wait = "i=0; until {0}{1} || [ $i -gt 100 ]; do i=$((i+1)); sleep 0.1; done; "
        guest.run(wait.format(there, "") + "udevadm settle", check=True)
        yield
    guest.run(wait.format("! ", there))


@dataclass(frozen=True)
class Output:
    """What a client printed, in each of the three ways.

    Attributes:
        libccid: With pcscd and libccid.
        ours: With pcscd and our driver.
        service: With ``ccid-pcscd``, and no pcscd; empty if that was not tried.
    """

    libccid: str
    ours: str
    service: str = ""

    @property
    def own(self) -> tuple[str, str]:
        """Both that have our code in them."""
        return self.ours, self.service


Settings = Mapping[str, str]
"""Variables for the clients."""


@contextmanager
def daemon(guest: Guest, bundle: Path | None) -> Iterator[Settings]:
    """pcscd, with libccid or with our driver, and the three readers."""
    own = f"{DROPDIR}/{NAME}"
    if bundle is not None:
        guest.run(["cp", "-r", str(bundle), own], check=True)
    try:
        with pcscd(guest, len(LAB) + 1, timeout=START_S):
            helpers = guest.run("pgrep -fc '[c]cid.pcsc.plug.helper'").stdout.strip()
            if int(helpers) != (len(LAB) + 1 if bundle is not None else 0):
                raise LabError(f"{helpers} of our driver's processes run")
            yield {}
    finally:
        guest.run(["rm", "-rf", own], check=True)


@contextmanager
def service(guest: Guest) -> Iterator[Settings]:
    """Our service, which has the three readers itself."""
    preload = (*PRELOAD, "ccid.pcsc.service.__main__", "ccid.pcsc.service.socket_server")
    settings = {"PCSCLITE_CSOCK_NAME": SOCKET}
    with (
        guest.popen_script(SERVICE, *OPTIONS, preload=preload) as job,
        ExitStack() as stack,
    ):
        job.wait_for(r"\A\n", START_S)
        # readers are ours as long as a program has a context, and pcscd's at all times
        holder = stack.enter_context(guest.popen(["pcsc_scan", "-n"], env=settings))
        try:
            holder.wait_for(r"(?s)(Reader \d.*?Card inserted.*?){3}", START_S)
        except LabError as error:
            raise LabError(f"{error}\nour service: {job.stderr}") from None
        if not guest.run("pgrep -x pcscd").returncode:
            raise LabError("pcscd runs")
        yield settings


def shell(guest: Guest, client: Client, settings: Settings) -> str:
    """The commands and their output, as in a terminal; the exit status of one that failed."""
    own = {"GNUPGHOME": f"{FOLDER}/gnupg", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = guest.run(script(client), cwd=FOLDER, env={**settings, **own}, timeout=RUN_S)
    return done.stdout + (f"exit status {done.returncode}\n" if done.returncode else "")


def set_up(guest: Guest) -> None:
    """A folder with the files that the commands read."""
    guest.run(f"rm -rf {FOLDER}; mkdir -p -m 700 {FOLDER}/gnupg", check=True)
    for path, text in gnupg_files(FOLDER).items():
        guest.run(f"cat >{path}", input=text, check=True)
    fifos = " ".join(Path(name).stem for name in ENDLESS)
    guest.run(f"chmod 755 {FOLDER}/gnupg/pinentry; cd {FOLDER}; mkfifo {fifos}", check=True)


def examples(guest: Guest, settings: Settings) -> dict[str, str]:
    """pyscard's examples, one after the other; with the exit status of one that failed."""
    paths = [f"{EXAMPLES}/{name}" for name in PROGRAMS]
    command = ["/usr/bin/python3", "-c", RUNNER, "none", *paths]
    done = guest.run(command, env=settings, timeout=RUN_S)
    parts = re.split(r"^(?=\$ python3 )", done.stdout, flags=re.MULTILINE)[1:]
    if len(parts) != len(PROGRAMS):
        raise LabError(f"pyscard's examples: {done.stderr}{done.stdout[-2000:]}")
    return dict(zip(PROGRAMS, parts, strict=True))


PYSCARD_RACE = re.compile(
    r"ListReadersException: .*Insufficient buffer"
    r"|SystemError: <built-in function SCardListReaders> returned a result with an exception set"
)
"""pyscard asks how long the list of readers is, then for the list. If a reader comes in between,
its monitor prints this and ends, with any pcscd; the slower the machine, the more often."""
TRIES = 5


def watchers(guest: Guest, settings: Settings) -> dict[str, str]:
    """What the programs that watch print, while the echo card and its reader come and go; with the
    error if one did not print what it had to.

    They run again if pyscard's monitor ended by :data:`PYSCARD_RACE`.
    """
    for _ in range(TRIES):
        jobs: dict[str, Job] = {}
        failure = ""
        try:
            watch(guest, settings, jobs)
        except LabError as error:
            failure = f"exit status: {error}\n"
        said = {name: jobs[name].stdout if name in jobs else "" for name in WATCHERS}
        if not (failure and any(map(PYSCARD_RACE.search, said.values()))):
            break
    said["pcsc_scan"] = "$ pcsc_scan -n\n" + without_spinner(said["pcsc_scan"])
    return {name: text + (f"\n{failure}" if failure else "") for name, text in said.items()}


def watch(guest: Guest, settings: Settings, jobs: dict[str, Job]) -> None:
    """Run the programs that watch, and take the echo card and its reader out and put them in.

    Args:
        guest: Where.
        settings: Variables for the programs.
        jobs: Gets the programs, by name.

    Raises:
        LabError: One did not print what it had to.
    """
    reader = guest.readers[LAB[0]]
    start = partial(guest.popen, env=settings)
    with ExitStack() as stack:
        stack.callback(put_back, reader)
        jobs["pcsc_scan"] = stack.enter_context(start(["pcsc_scan", "-n"]))
        for name in list(WATCHERS)[1:]:
            fifo = f"{FOLDER}/{Path(name).stem}"
            command = ["/usr/bin/python3", "-uc", RUNNER, fifo, f"{EXAMPLES}/{name}"]
            jobs[name] = stack.enter_context(start(command))
        scan, cards, readers, change = jobs.values()
        see(scan, r"(?s:(Reader \d.*?Card inserted.*?){3})")
        see(cards, r"(?s:(Inserted.*){3})")
        see(readers, "Added")
        see(change, "Please insert")
        reader.card_out()
        see(scan, "lab0.*\n.*\n.*Card removed")
        see(cards, "Removed")
        change.wait(WAIT_S)
        reader.card_in()
        see(scan, r"(?s:Card removed.*lab0[^\n]*\n[^\n]*\n[^\n]*Card inserted)")
        see(cards, r"(?s:(Inserted.*){4})")
        reader.unplug()
        see(readers, "Removed readers .*lab0")
        see(scan, r"(?s:(Scanning.*){2}lab2.*(Card inserted.*){2})")
        see(cards, r"(?s:(Removed.*){2})")
        reader.plug()
        see(readers, "(?s:Removed readers [^\n]*lab0.*Added readers [^\n]*lab0)")
        see(scan, r"(?s:(Scanning.*){3}(ATR: [^\n]*\n.*){3})")
        see(cards, r"(?s:(Inserted.*){5})")
        for name in ENDLESS:
            guest.run(f"echo >{FOLDER}/{Path(name).stem}", check=True)
            jobs[name].wait(WAIT_S)


def see(job: Job, pattern: str) -> None:
    """Wait until a program has printed ``pattern``.

    Raises:
        LabError: It did not, or pyscard's monitor ended.
    """
    job.wait_for(f"(?:{pattern})|{PYSCARD_RACE.pattern}", WAIT_S)
    if PYSCARD_RACE.search(job.stdout):
        raise LabError(f"pyscard's monitor ended: {job.stdout}")


def put_back(reader: LabReader) -> None:
    """Have the reader plugged in, and its card in it."""
    reader.plug()
    if not reader.card_present:
        reader.card_in()


def without_spinner(text: str) -> str:
    """The output of ``pcsc_scan`` without what it shows while it waits. Since 1.7 these are lines,
    too, and where they stand depends on how fast things happen."""
    text = re.sub(r"\r *[-\\|/]? *", "", text)
    text = re.sub(
        r"(?m)^(Insert or remove a card or a reader\.\.\.|\. +\(use Ctrl-C to exit\)) *", "", text
    )
    text = re.sub(r"\n+(?=\w{3} \w{3} +\d+ \d\d:)", "\n\n", text)
    return re.sub(r"\n{2,}(?=Scanning|\Z)", "\n", text)


Way = Callable[[Guest], AbstractContextManager[Settings]]
"""Serves PC/SC in a guest."""


def run_all(guest: Guest, way: Way) -> dict[str, str]:
    """The output of each client.

    Args:
        guest: Where.
        way: What serves PC/SC.
    """
    set_up(guest)
    guest.leave_only(*LAB)
    with openpgp_card(guest, f"{FOLDER}/card"), way(guest) as settings:
        said = examples(guest, settings)
        for name, client in CLIENTS.items():
            said[name] = shell(guest, client, settings)
        guest.run(["gpgconf", "--kill", "all"], env={"GNUPGHOME": f"{FOLDER}/gnupg"})
        said |= watchers(guest, settings)
    return said


def compare(guest: Guest, folder: Path, *, without: bool = True) -> dict[str, Output]:
    """By name: the output of a client in each of the three ways.

    Args:
        guest: The guest.
        folder: The folder for the bundle.
        without: The third way, too: without pcscd.

    Raises:
        LabError: A client failed.
    """
    made = make_bundle(guest, folder, ["08e6:4433", "08e6:3437"])
    ways: list[Way] = [partial(daemon, bundle=None), partial(daemon, bundle=made), service]
    said = [run_all(guest, way) for way in ways[: 3 if without else 2]]
    return {name: Output(*(one[name] for one in said)) for name in rows()}


def compare_modern(service: Service, folder: Path) -> dict[str, Output]:
    """:func:`compare` with pcscd in the guest with a newer Debian, whose driver is taken out of
    pcscd. Without pcscd nothing of that Debian counts but the programs."""
    service.uninstall()
    for reader in service.guest.readers:
        reader.plug()
    return compare(service.guest, folder, without=False)


# The page -------------------------------------------------------------------------------------

HEAD = """\
# Programs that use our driver

<!-- Made by tools/clients-page, from what the programs print in the lab's guests. -->

Debian's programs, unchanged, each run three times on the same readers: through Debian's pcscd with
libccid as the driver, through the same pcscd with our driver, and without pcscd, through our
service `ccid-pcscd` ([pcsc.md](pcsc.md)), as any user may run it; here with `--no-escape`, because
pcscd's drivers refuse Escape commands unless the machine's owner allows them. Three readers are
plugged in: QEMU's with our echo card in it, QEMU's with libcacard's CAC, and our virtual reader, a
real USB device by USB/IP, with an OpenPGP card (jcecard's) in it. *Same* means that the whole
output is that with libccid, but for what is named below the table. While the first four ran, the
echo card was taken out and put in, then its reader. GnuPG asks a `pinentry` that knows the card's
PINs.

That was done in Debian 12, where pcscd runs as root, and with pcscd once more in a newer Debian,
where systemd runs pcscd as a user of its own, in its sandbox. The head of the table has the
versions. `tests/vm/test_clients.py` does it all again in the one,
`tests/vm/test_modern_clients.py` in the other.

"""

SAME, NEARLY, DIFFERENT = "same", "same, but for what is named below", "**different**"


def verdict(output: Output) -> tuple[str, ...]:
    """How our driver's output and our service's, if there is one, compare with libccid's."""
    expected, ours, service = map(normal, (output.libccid, output.ours, output.service))
    driver = SAME if expected == ours else DIFFERENT
    if not service:
        return (driver,)
    nearly = NEARLY if expected == normal(service, WITHOUT_PCSCD) else DIFFERENT
    return driver, SAME if expected == service else nearly


@dataclass(frozen=True)
class Seen:
    """What was seen in one guest: columns of the table.

    Attributes:
        stack: Such as ``pcscd 2.5.2, libccid 1.8.4``.
        verdicts: By name of the client; see :func:`verdict`.
    """

    stack: str
    verdicts: dict[str, tuple[str, ...]]

    @property
    def heads(self) -> list[str]:
        """The heads of the columns."""
        both = len(next(iter(self.verdicts.values()))) > 1
        return [DRIVER + self.stack, *(["No pcscd"] if both else [])]


FIRST = ("Package", "Program", "Readers")
DRIVER = "Our driver, "


def seen(guest: Guest, said: Mapping[str, Output]) -> Seen:
    """The columns of ``guest``, in which the clients printed ``said``."""
    asked = "dpkg-query -W -f '${Package} ${source:Upstream-Version}\\n' pcscd libccid"
    versions = dict(line.split() for line in guest.run(asked, check=True).stdout.splitlines())
    stack = f"pcscd {versions['pcscd']}, libccid {versions['libccid']}"
    return Seen(stack, {name: verdict(output) for name, output in said.items()})


def seen_on(text: str) -> list[Seen]:
    """The columns of the guests on the page ``text``."""
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head, *lines = (cells[len(FIRST) :] for cells in table)
    by_name = dict(zip(rows(), lines, strict=True))
    starts = [at for at, cell in enumerate(head) if cell.startswith(DRIVER)]
    return [
        Seen(
            head[start].removeprefix(DRIVER),
            {name: tuple(cells[start:end]) for name, cells in by_name.items()},
        )
        for start, end in pairwise([*starts, len(head)])
    ]


def page(said: Mapping[str, Output], guests: Sequence[Seen]) -> str:
    """docs/clients.md.

    Args:
        said: What the clients printed in the first guest.
        guests: What was seen in each.
    """
    head = [*FIRST, *(cell for one in guests for cell in one.heads)]
    lines = [HEAD.rstrip("\n"), "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, client in rows().items():
        cells = [client.package, client.does, client.where]
        cells += [cell for one in guests for cell in one.verdicts[name]]
        lines.append(f"| {' | '.join(cells)} |")
    by_run = dict.fromkeys(variation.why for variation in VARIES if variation.why)
    lines += ["", "What differs from run to run, with the same driver, too:", ""]
    lines += [f"- {why}" for why in by_run]
    lines += ["", "What differs without pcscd:", ""]
    lines += [f"- {variation.why}" for variation in WITHOUT_PCSCD]
    lines += ["", f"What they print with our driver ({guests[0].stack}):"]
    for name, client in rows().items():
        if client.is_shown:
            text = re.sub(r"[ \t]+$", "", said[name].ours, flags=re.MULTILINE).strip("\n")
            lines += ["", f"## {client.does[:1].upper()}{client.does[1:]}"]
            lines += ["", f"```console\n{text}\n```"]
    return "\n".join(lines) + "\n"


def is_current(old: str, new: str) -> bool:
    """True if the page is equal to the output of a run on this machine."""
    allowed = (*VARIES, *OF_THE_MACHINE)
    return normal(old, allowed) == normal(new, allowed)
