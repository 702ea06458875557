"""SIGTERM and SIGHUP while a command runs: the card loses its power, the reader is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccid.probe.termination import Terminated, orderly_end

PATIENCE_S = 60.0
PROGRAM = """
import signal, sys
for name in "SIGTERM", "SIGHUP":  # the tests may run under nohup
    signal.signal(getattr(signal, name), signal.SIG_DFL)
from ccid.link import slot_commands
off = slot_commands.SlotCommands.power_off
def told(self, *words, **more):
    done = off(self, *words, **more)
    print("power off", file=sys.stderr, flush=True)
    return done
slot_commands.SlotCommands.power_off = told
from ccid.probe.__main__ import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals are POSIX's")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    ("words", "text", "sign"),
    [
        (["shell", "--virtual"], b"00A4000C023F00\n", b"ATR"),
        (["bench", "--virtual", "--count", "100000", "--trace", "TRACE"], b"", b""),
        (["watch", "--virtual", "--plain"], b"", b"arrived"),
    ],
)
def test_a_command_ends_in_order(
    words: list[str], text: bytes, sign: bytes, name: str, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.pcapng"
    arguments = [str(trace) if word == "TRACE" else word for word in words]
    command = [sys.executable, "-u", "-c", PROGRAM, *arguments]
    number = getattr(signal, name)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        try:
            process.stdin.write(text)
            process.stdin.flush()
            if sign:
                while sign not in process.stdout.readline():
                    assert process.poll() is None, process.stderr.read()
            else:
                while not trace.exists() or trace.stat().st_size < 1 << 16:
                    assert process.poll() is None, process.stderr.read()
                    time.sleep(0.01)
            process.send_signal(number)
            _, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()  # one that goes on would be waited for without end
    assert process.returncode == 128 + number
    assert b"Traceback" not in err
    assert (b"power off" in err) is (words[0] != "watch")


def test_handlers_are_put_back() -> None:
    """An ignored signal stays ignored."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(Terminated) as caught:
            with orderly_end():
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
        assert caught.value.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with orderly_end():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
