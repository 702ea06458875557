"""Runs pyscard's programs, unchanged, in the guest: client_runner.py FIFO PROGRAM...

Each program has a process of its own, in which pyscard is imported already: the import takes
seconds in the guest. A line with the name of the program precedes its output, its exit status
follows if the program failed; the others run nevertheless, and the exit status of all is 1. A
program that sleeps ten seconds or longer, so that a person can move cards, waits here until a
process opens FIFO.
"""

import os
import runpy
import sys
import time
import traceback

import smartcard.CardMonitoring
import smartcard.CardRequest
import smartcard.ReaderMonitoring
import smartcard.scard
import smartcard.System  # noqa: F401 - imported for the programs

LONG_S = 10
sleep = time.sleep


def wait(seconds: float) -> None:
    if seconds < LONG_S:
        sleep(seconds)
        return
    with open(sys.argv[1]) as fifo:
        fifo.read()


def run(path: str) -> int:
    """Run one program; returns its exit status."""
    os.dup2(1, 2)
    time.sleep = wait  # type: ignore[assignment]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0) if isinstance(end.code, int | None) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


failed = False
for path in sys.argv[2:]:
    print(f"$ python3 {path}", flush=True)
    pid = os.fork()
    if not pid:
        status = run(path)
        sys.stdout.flush()
        os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status:
        print(f"\nexit status {os.waitstatus_to_exitcode(status)}", flush=True)
        failed = True
sys.exit(failed)
