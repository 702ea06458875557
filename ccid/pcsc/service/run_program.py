"""``ccid-run``: runs a program with a PC/SC service of its own.

    ccid-run                                        # shows readers and cards
    ccid-run --virtual -- pcsc_scan -r
    ccid-run --reader 08e6:3437 -- opensc-tool --atr

The service listens in a folder that only this user can enter, and ends with the program. The exit
status is the program's.
"""

from __future__ import annotations

import argparse
import ctypes.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ccid._version import __version__
from ccid.errors import CcidError
from ccid.pcsc.service import virtual_options
from ccid.pcsc.service.package_hints import library_hint, program_hint
from ccid.pcsc.service.socket_place import SOCKET_VARIABLE

END_S = 10.0
"""The service has powered all cards off by then."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit statuses as a shell has them."""
BY_SIGNAL = 128
AWAITED = {
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD),
}
FROM_KERNEL = 0x80
"""SI_KERNEL of sigaction(2)."""

OWN_CLIENT = [sys.executable, "-m", "ccid.pcsc.service.readers_client"]
"""What runs where no program is named."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ccid-run",
        usage="ccid-run [options] [-- PROGRAM [ARGUMENT ...]]",
        description="Runs a program that uses PC/SC, with a service of its own: no pcscd is "
        "needed, and none is disturbed. Without PROGRAM, shows the readers and cards that programs "
        "see.",
    )
    virtual_options.add_arguments(parser)
    parser.add_argument("--readers", metavar="N", help="as for ccid-pcscd")
    parser.add_argument("--log-level", metavar="LEVEL", help="as for ccid-pcscd")
    parser.add_argument("--trace", metavar="FILE", help="as for ccid-pcscd")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("program", metavar="PROGRAM", nargs=argparse.REMAINDER)
    return parser


def _service_arguments(options: argparse.Namespace) -> list[str]:
    arguments = virtual_options.as_arguments(options)
    for name in ("readers", "log_level", "trace"):
        value = getattr(options, name)
        if value is not None:
            arguments += ["--" + name.replace("_", "-"), value]
    return arguments


def _os_release() -> str:
    try:
        return Path("/etc/os-release").read_text("utf-8", "replace")
    except OSError:
        return ""


def _warn_without_library() -> None:
    """Say so if there is no libpcsclite; the program may have one of its own."""
    if ctypes.util.find_library("pcsclite") is not None:
        return
    print(
        "ccid-run: libpcsclite.so.1 is not there, which programs need for PC/SC. It comes by: "
        f"{library_hint(_os_release())}",
        file=sys.stderr,
    )


def _say_no_program(program: str) -> None:
    hint = program_hint(program, _os_release())
    end = f". It comes by: {hint}" if hint else ""
    print(f"ccid-run: there is no program {program!r}{end}", file=sys.stderr)


def _has_usb_reader() -> bool:
    from ccid.device.find import list_readers

    try:
        return bool(list_readers())
    except CcidError:  # libusb cannot be had; the service will say so when a reader is asked for
        return False


class _Service:
    """``ccid-pcscd``, started for one program.

    Args:
        folder: Where its socket is to be.
        arguments: Its command line.
    """

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.path = folder / "pcscd.comm"
        self._ready, ready = os.pipe()
        until, self._until = os.pipe()  # closed when this process ends, however it does
        command = [sys.executable, "-m", "ccid.pcsc.service", "--socket", str(self.path)]
        command += ["--ready-fd", str(ready), "--until-fd", str(until)]
        try:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=[ready, until],
                start_new_session=True,  # Ctrl-C is for the program
            )
        finally:
            os.close(ready)
            os.close(until)

    def wait_until_ready(self) -> bool:
        """Wait until it listens; False if it ended instead."""
        try:
            return bool(os.read(self._ready, 1))
        finally:
            os.close(self._ready)

    def end(self) -> None:
        """End it, and wait for that."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._until)


class _Program:
    """The program. Signals that come meanwhile are passed on to it; not those of the terminal
    (Ctrl-C), which the program gets by itself.

    Args:
        words: The program and its arguments.
        path: The socket of its service.
    """

    def __init__(self, words: Sequence[str], path: Path) -> None:
        self._words = words
        self._environment = {**os.environ, SOCKET_VARIABLE: str(path)}

    def run(self) -> int:
        """Run it; returns its exit status, as a shell has it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)  # until it is waited for them
        try:
            process = subprocess.Popen(
                self._words, env=self._environment, preexec_fn=_hear_signals_again
            )
        except FileNotFoundError:
            _say_no_program(self._words[0])
            return NOT_FOUND
        except OSError as error:
            print(f"ccid-run: {self._words[0]}: {error.strerror}", file=sys.stderr)
            return NOT_EXECUTABLE
        while (status := process.poll()) is None:
            number, is_terminals = _next_signal()
            if number != signal.SIGCHLD and not is_terminals:
                process.send_signal(number)
        return BY_SIGNAL - status if status < 0 else status


def _hear_signals_again() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)


def _next_signal() -> tuple[int, bool]:
    """Wait for a signal: its number, and whether the terminal sent it."""
    if hasattr(signal, "sigwaitinfo"):
        told = signal.sigwaitinfo(AWAITED)
        return told.si_signo, told.si_code == FROM_KERNEL
    return signal.sigwait(AWAITED), False


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = _parser()
    options = parser.parse_args(argv)
    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    arguments = _service_arguments(options)
    if program:
        _warn_without_library()
    else:
        program = OWN_CLIENT
        if not virtual_options.as_arguments(options) and not _has_usb_reader():
            print("ccid-run: no reader on USB: this is a virtual one", file=sys.stderr)
            arguments += ["--virtual"]
    try:
        return _with_service(program, arguments)
    except KeyboardInterrupt:  # before the program began
        return BY_SIGNAL + signal.SIGINT


def _with_service(program: Sequence[str], arguments: Sequence[str]) -> int:
    """Run the program with a service; returns the exit status."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    usable = runtime if runtime and os.access(runtime, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="ccid-run-", dir=usable))
    try:
        service = _Service(folder, arguments)
        try:
            if not service.wait_until_ready():
                print("ccid-run: the service did not start", file=sys.stderr)
                return 1
            return _Program(program, service.path).run()
        finally:
            service.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
