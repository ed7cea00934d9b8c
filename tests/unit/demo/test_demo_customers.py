"""Customers who go on asking while something else happens."""

import asyncio

from adaptd.daemon.demo.customers import Desk
from tests.support.waiting import until


class Counted(Desk):
    """Counts requests instead of sending them."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "token")
        self.asked = 0

    async def ask_many(
        self, count: int, *, queues: tuple[str, ...], clients: int = 12, poison: str | None = None
    ) -> None:
        self.asked += count
        await asyncio.sleep(0)


async def test_customers_ask_at_most_so_many_however_long_it_takes() -> None:
    desk, stop = Counted(), asyncio.Event()
    asking = asyncio.create_task(
        desk.ask_until(stop, queues=("refund",), clients=1, pause_s=0.001, at_most=6)
    )
    await asyncio.sleep(0.1)

    assert not asking.done()  # they wait for the end, as traffic does
    stop.set()
    await asking
    assert desk.asked == 6
    await desk.close()


async def test_customers_without_a_limit_ask_until_they_are_stopped() -> None:
    desk, stop = Counted(), asyncio.Event()
    asking = asyncio.create_task(desk.ask_until(stop, queues=("refund",), clients=1))
    await until(lambda: desk.asked >= 20, within_s=10, every_s=0.01)

    stop.set()
    await asking
    await desk.close()
