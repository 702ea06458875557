"""List the readers on USB, and whether each reader will work. No device is opened.

python examples/list_readers.py            the readers that are plugged in
python examples/list_readers.py --virtual  a virtual reader: no hardware is needed
"""

from __future__ import annotations

import sys

import ccid
from ccid.device.verdict import judge


def main(words: list[str]) -> None:
    infos = [ccid.VirtualReader().info] if "--virtual" in words else ccid.list_readers()
    for info in infos:
        verdict = judge(info)  # from the descriptors and the table of readers
        print(f"{info}: {verdict.level.value}")
        for reason in verdict.reasons:
            print(f"    {reason}")
    if not infos:
        print("no CCID reader on USB; `ccid-probe doctor` looks for the reason")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ccid.CcidError as error:
        sys.exit(str(error))
