"""``await card.transmit`` in a task of asyncio, as ``ccid_loop.py`` without tasks.

aio_loop.py APDU                in the first reader
"""

from __future__ import annotations

import asyncio
import sys
import time

from measured_loop import counts, read_apdu, report

from ccid import aio


async def main(apdu: bytes) -> None:
    clock = time.perf_counter
    async with aio.open_reader() as reader, reader.slots[0].connect() as card:
        for count in counts():  # which blocks the loop, between two measures
            times = [0.0] * (count + 1)
            cpu = time.process_time()
            times[0] = clock()
            for i in range(1, count + 1):
                response = await card.transmit(apdu)
                times[i] = clock()
            cpu = time.process_time() - cpu
            report(times, cpu, response)


if __name__ == "__main__":
    asyncio.run(main(read_apdu(sys.argv[1])))
