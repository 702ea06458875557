"""The guest's end of the link: runs commands for the host. Standard library only.

One JSON object a line, both ways, over a virtio-serial port. The host sends, ``id`` of its choice:

``{"do": "start", "id", "argv", "cwd", "env", "timeout", "input"}``
    Run a command in a session of its own; ``input`` is base64 or null, ``timeout`` null or s.
``{"do": "start", "id", "source", "argv", "path", "preload", "cwd", "env", "timeout", "input"}``
    Run Python source in a fork of this process, which has imported the modules of ``preload`` from
    ``path`` by then: at the first such request, not at every one.
``{"do": "signal", "id", "signal"}``
    Send its process group a signal.
``{"do": "stop", "id", "grace"}``
    SIGTERM to the group, SIGKILL after ``grace`` seconds.

and gets ``{"event": "ready"}`` once, and for every job any number of ``{"event": "output", "id",
"stream", "data"}`` (stream 1 or 2, data base64), then ``{"event": "exit", "id", "returncode",
"timed_out", "seconds"}``. A command ends with its first process: what else is in its process group
is then killed, and output of others that hold its pipes is awaited for LINGER_S.

All is one thread around one selector: the host always reads, so a write to the port never blocks
for good.
"""

from __future__ import annotations

import atexit
import importlib
import json
import linecache
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
from binascii import a2b_base64, b2a_base64
from typing import Any

LINGER_S = 0.5
"""Time in s to wait for output after the command ended."""
CHUNK = 1 << 16


class Port:
    """The virtio-serial port."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR)
        self._buffer = bytearray()

    def send(self, event: str, **members: Any) -> None:
        """Write one line; the port takes at most 32 KiB at a time."""
        line = memoryview(json.dumps({"event": event, **members}).encode() + b"\n")
        while line:
            line = line[os.write(self.fd, line) :]

    def receive(self) -> list[dict[str, Any]]:
        """The complete lines received so far."""
        data = os.read(self.fd, CHUNK)
        self._buffer += data
        if b"\n" not in data:
            return []
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines]


class Forked:
    """Python source that runs in a fork of this process. Has the part of ``subprocess.Popen`` that
    a job uses."""

    def __init__(self, request: dict[str, Any]) -> None:
        sys.path[:] = request["path"]
        for name in request["preload"]:
            importlib.import_module(name)
        theirs, ours = zip(os.pipe(), os.pipe()[::-1], os.pipe()[::-1], strict=True)
        self.pid = os.fork()
        if self.pid == 0:
            self._be(request, theirs)
        for fd in theirs:
            os.close(fd)
        stdin, stdout, stderr = ours
        self.stdin = open(stdin, "wb", buffering=0) if request["input"] else None
        if self.stdin is None:
            os.close(stdin)
        self.stdout = open(stdout, "rb", buffering=0)
        self.stderr = open(stderr, "rb", buffering=0)

    def wait(self) -> int:
        """The exit code; minus the signal number if a signal ended the process."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _be(self, request: dict[str, Any], fds: tuple[int, ...]) -> None:
        """In the child: run the source as a program, and do not return."""
        code = 1
        try:
            os.setsid()
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["env"])
            main = types.ModuleType("__main__")
            sys.modules["__main__"] = main
            sys.argv = ["-c", *request["argv"]]
            source, name = request["source"], "<script>"
            linecache.cache[name] = (len(source), None, source.splitlines(True), name)
            exec(compile(source, name, "exec"), vars(main))
            code = 0
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        except BaseException:
            traceback.print_exc()
        finally:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code & 0xFF)


class Job:
    """One command and its pipes."""

    def __init__(self, request: dict[str, Any], port: Port, selector: selectors.BaseSelector):
        self.id: int = request["id"]
        self._port = port
        self._selector = selector
        self._input = memoryview(a2b_base64(request["input"] or ""))
        self._began = time.monotonic()
        timeout = request["timeout"]
        self.due: float | None = None if timeout is None else self._began + timeout
        self.timed_out = False
        self.finished = False
        self._stopped = False
        self._returncode: int | None = None
        self._pipes: dict[int, int] = {}
        self._process: subprocess.Popen[bytes] | Forked | None = None
        try:
            self._process = Forked(request) if "source" in request else self._popen(request)
        except (OSError, ValueError, ImportError) as error:
            self._output(2, f"{error}\n".encode())
            self._returncode = 127
            self._finish()
            return
        self._pid_fd = os.pidfd_open(self._process.pid)
        selector.register(self._pid_fd, selectors.EVENT_READ, self._ended)
        for stream, pipe in ((1, self._process.stdout), (2, self._process.stderr)):
            assert pipe is not None
            self._pipes[pipe.fileno()] = stream
            selector.register(pipe.fileno(), selectors.EVENT_READ, self._read)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
            selector.register(self._process.stdin.fileno(), selectors.EVENT_WRITE, self._write)

    def _popen(self, request: dict[str, Any]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            request["argv"],
            cwd=request["cwd"],
            env=request["env"],
            stdin=subprocess.PIPE if self._input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )

    def _output(self, stream: int, data: bytes) -> None:
        text = b2a_base64(data, newline=False).decode()
        self._port.send("output", id=self.id, stream=stream, data=text)

    def _read(self, fd: int) -> None:
        data = os.read(fd, CHUNK)
        if data:
            self._output(self._pipes[fd], data)
            return
        self._selector.unregister(fd)
        del self._pipes[fd]
        if not self._pipes and self._returncode is not None:
            self._finish()

    def _write(self, fd: int) -> None:
        try:
            self._input = self._input[os.write(fd, self._input[:CHUNK]) :]
        except BrokenPipeError:  # it does not want the rest
            self._input = self._input[:0]
        if not self._input:
            self._close_stdin()

    def _close_stdin(self) -> None:
        assert self._process is not None
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            self._selector.unregister(stdin.fileno())
            stdin.close()

    def kill(self, number: int) -> None:
        """Signal the process group. The leader is reaped last, so that its number stays valid."""
        if self._process is not None and self._returncode is None:
            os.killpg(self._process.pid, number)

    def stop(self, grace: float) -> None:
        """Ask the process group to end; kill the group after ``grace`` seconds."""
        self._stopped = True
        self.kill(signal.SIGTERM)
        now = time.monotonic()
        self.due = now + grace if self.due is None else min(self.due, now + grace)

    def _ended(self, fd: int) -> None:
        assert self._process is not None
        self.kill(signal.SIGKILL)
        self._selector.unregister(fd)
        os.close(fd)
        self._returncode = self._process.wait()
        self._close_stdin()
        self.due = time.monotonic() + LINGER_S
        if not self._pipes:
            self._finish()

    def tick(self, now: float) -> None:
        """Act if a deadline has passed: of the command, or of the output after its end."""
        if self.due is None or now < self.due:
            return
        self.due = None
        if self._returncode is None:
            self.timed_out = not self._stopped
            self.kill(signal.SIGKILL)
            return
        self._finish()

    def _finish(self) -> None:
        """Report the end, once. No deadline is left: a request in the same round may take so long
        (it imports modules) that the time for the rest of the output is over."""
        self.due = None
        for fd in self._pipes:
            self._selector.unregister(fd)
        self._pipes.clear()
        for pipe in (self._process.stdout, self._process.stderr) if self._process else ():
            if pipe is not None:
                pipe.close()
        self.finished = True
        self._port.send(
            "exit",
            id=self.id,
            returncode=self._returncode,
            timed_out=self.timed_out,
            seconds=time.monotonic() - self._began,
        )


def serve(path: str) -> None:
    """Carry out the requests from the port at ``path``, until the guest ends."""
    port = Port(path)
    selector = selectors.DefaultSelector()
    jobs: dict[int, Job] = {}

    def request(_: int) -> None:
        for message in port.receive():
            job = jobs.get(message["id"])
            match message["do"]:
                case "start":
                    jobs[message["id"]] = Job(message, port, selector)
                case "signal" if job:
                    job.kill(message["signal"])
                case "stop" if job:
                    job.stop(message["grace"])

    selector.register(port.fd, selectors.EVENT_READ, request)
    port.send("ready")
    while True:
        dues = [job.due for job in jobs.values() if job.due is not None]
        left = max(0.0, min(dues) - time.monotonic()) if dues else None
        for key, _ in selector.select(left):
            if key.fd in selector.get_map():
                key.data(key.fd)
        now = time.monotonic()
        for job in list(jobs.values()):
            job.tick(now)
            if job.finished:
                del jobs[job.id]


if __name__ == "__main__":
    serve(sys.argv[1])
