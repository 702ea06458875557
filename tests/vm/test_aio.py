"""Tasks of asyncio, over a real USB stack: commands, time limits and events."""

from __future__ import annotations

from lab.guest import Guest

from tests.vm.test_usbip import plugged

MAIN = """
import asyncio
from ccid import aio
FAST, ENDLESS = bytes.fromhex("00400000"), bytes.fromhex("00380E10")

async def commands():
    async with aio.open_reader(find()) as reader:
        async with reader.slots[0].connect() as card:
            replies = [await card.transmit(FAST) for _ in range(50)]
            print(len(replies), {reply.hex() for reply in replies})
            for _ in range(2):
                began = time.monotonic()
                try:
                    async with asyncio.timeout(0.2):
                        await card.transmit(ENDLESS)
                except TimeoutError:
                    print("given up", time.monotonic() - began < 20)
                print((await card.transmit(FAST)).hex())
            tasks = [asyncio.create_task(card.transmit(ENDLESS)) for _ in range(3)]
            await asyncio.sleep(0.2)
            for task in reversed(tasks): task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            print([type(end).__name__ for end in ends])
            print((await card.transmit(FAST)).hex(), reader._reader.pipe.count < 100)

async def events():
    async with aio.watch(60) as events:
        async for event in events:
            if event.reader.manufacturer != "ccid": continue
            print(event.kind.value, flush=True)
            if event.kind is ccid.EventKind.CARD_ARRIVED:
                await asyncio.to_thread(hand, "card out")
            elif event.kind is ccid.EventKind.CARD_LEFT: break

asyncio.run(commands())
asyncio.run(events())
print([t.name for t in threading.enumerate() if t.name.startswith("ccid.aio")])
"""


def test_commands_time_limits_and_events(guest: Guest) -> None:
    with plugged(guest, "--level", "short", "--card", "echo") as usb:
        said = usb.script(MAIN).splitlines()
    assert said == [
        "50 {'9000'}",
        *("given up True", "9000") * 2,
        "['CancelledError', 'CancelledError', 'CancelledError']",
        "9000 True",
        *("reader arrived", "card arrived", "card left"),
        "[]",
    ]
