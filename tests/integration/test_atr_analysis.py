"""Our reading of every ATR in pcsc-tools' list, compared with ATR_analysis of pcsc-tools."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.tools import need

TOOL = Path(__file__).parents[2] / "tools" / "compare-atrs"
SAMPLE, SEED = 400, 7816


def compare(*words: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the comparison. ``path`` comes first in the search path for programs."""
    env = dict(os.environ)
    if path is not None:
        env["PATH"] = f"{path}:{env['PATH']}"
    return subprocess.run(
        [sys.executable, TOOL, *words], capture_output=True, text=True, timeout=300, env=env
    )


def test_every_disagreement_is_explained(full: bool) -> None:
    need("ATR_analysis")
    done = compare() if full else compare("--sample", str(SAMPLE), "--seed", str(SEED))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    told = re.search(r"^(\d+) ATRs, (\d+) agree in every fact$", done.stdout, re.M)
    assert told is not None, done.stdout[-3000:]
    count, agree = int(told[1]), int(told[2])
    assert count > 4000 if full else count == SAMPLE
    assert agree > 0.9 * count
    assert "0 unexplained" in done.stdout


def test_what_is_unexplained_is_a_failure(tmp_path: Path) -> None:
    """A program that finds an IFSC of 17 in every ATR must make the comparison fail."""
    wrong = tmp_path / "ATR_analysis"
    wrong.write_text(
        'print "ATR: $ARGV[0]\\n+ TS = 3B --> Direct Convention\\n";'
        'print "+ T0 = 00, Y(1): 0000, K: 0 (historical bytes)\\n  TA(3) = 11 --> IFSC: 17\\n";'
    )
    wrong.chmod(0o755)
    atrs = tmp_path / "atrs"
    atrs.write_text("3B 00\n")
    done = compare(atrs, path=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "3B 00: IFSC: 32, ATR_analysis 17: UNEXPLAINED" in done.stdout
    assert "1 unexplained" in done.stdout


@pytest.mark.parametrize("text", ["3B10", "00 00"])
def test_an_atr_that_does_not_parse_is_a_failure(tmp_path: Path, text: str) -> None:
    need("ATR_analysis")
    atrs = tmp_path / "atrs"
    atrs.write_text(f"{text}\n")
    done = compare(atrs)
    assert done.returncode == 1, done.stderr
    assert "does not parse" in done.stdout


def test_without_a_list_it_says_what_to_do(tmp_path: Path) -> None:
    need("ATR_analysis")
    done = compare(tmp_path / "none")
    assert done.returncode == 2
    assert "sudo tools/prepare-lab" in done.stderr
