"""The agent in the lab's guest, here without a guest."""

from __future__ import annotations

import selectors
import time
from typing import Any

import pytest
from lab import agent


class Port:
    """Records what the agent sends."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def send(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))


@pytest.mark.parametrize("command", ["exit 3", "echo output; exit 3"])
def test_the_end_of_a_job_is_reported_once(command: str) -> None:
    """Also if the round of events takes longer than the rest of the output may take."""
    port, selector = Port(), selectors.DefaultSelector()
    request = {
        "id": 57,
        "argv": ["sh", "-c", command],
        "cwd": "/",
        "env": {},
        "timeout": 60,
        "input": None,
    }
    job = agent.Job(request, port, selector)  # type: ignore[arg-type]
    limit = time.monotonic() + 30
    while not job.finished and time.monotonic() < limit:
        for key, _ in selector.select(1):
            if key.fd in selector.get_map():
                key.data(key.fd)
    job.tick(time.monotonic() + 3600)
    ends = [fields["returncode"] for event, fields in port.events if event == "exit"]
    assert ends == [3]
