"""The demo on screen: stages with their time, what happens now, time left."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from adaptd.daemon.demo.forecast import STAGES, Forecast, Stage

_SAY_EVERY_S = 10.0  # where there is no terminal


def say(text: str) -> None:
    """A line that stays, before or after the live table."""
    Console(file=sys.stderr).print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def shown(text: str) -> Iterator[None]:
    """A line that is gone afterwards, and on terminals only."""
    with Console(file=sys.stderr).status(text):
        yield


class Screen:
    """A live table on a terminal, plain lines elsewhere. `started` is a time of `monotonic`."""

    def __init__(self, forecast: Forecast, *, started: float) -> None:
        self._forecast = forecast
        self._started = started
        self._said_at = 0.0
        self._begun: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._now = ""
        self._news: deque[str] = deque(maxlen=8)
        self._console = Console(file=sys.stderr)
        self._live = Live(
            console=self._console, get_renderable=self._render_table, refresh_per_second=2
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def begin(self, part: str) -> None:
        """A part of a stage starts, and with its first part the stage; the one before it ends."""
        self._forecast.begin(part)
        self._now = ""
        key = part.partition(".")[0]
        if key in self._begun:
            return
        self._begun[key] = self.end() if self._begun else self._started
        title = next(stage.title for stage in STAGES if stage.key == key)
        self._print_line(f"── {title}  ({self._time_left()})")

    def end(self) -> float:
        """End the stage that runs, and say when."""
        moment = time.monotonic()
        for key in self._begun.keys() - self._ended.keys():
            self._ended[key] = moment
        return moment

    def now(self, text: str, *, left_s: float | None = None) -> None:
        """Show the present activity; replaces what was said before.

        `left_s` is how long the part still takes, where that can be told from what it has done.
        """
        if left_s is not None:
            self._forecast.tell_left(left_s)
        self._now = text
        if time.monotonic() - self._said_at > _SAY_EVERY_S:
            self._print_line(f"   … {text}")

    def news(self, text: str) -> None:
        """Something that stays worth reading."""
        self._news.append(f"{self._time_elapsed()} {text}")
        self._print_line(f"   {text}")

    @property
    def spent_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started

    def stage_times_s(self) -> dict[str, float]:
        """Seconds that each stage took, or has taken so far."""
        return {key: round(self._spent_s(key), 1) for key in self._begun}

    def _spent_s(self, key: str) -> float:
        return self._ended.get(key, time.monotonic()) - self._begun[key]

    def _time_left(self) -> str:
        return f"about {self._forecast.left_s / 60:.0f} min left"

    def _time_elapsed(self) -> str:
        seconds = int(self.spent_s)
        return f"{seconds // 60:02}:{seconds % 60:02}"

    def _print_line(self, text: str) -> None:
        self._said_at = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(
                f"{self._time_elapsed()} {text}", markup=False, highlight=False, soft_wrap=True
            )

    def _render_table(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for stage in STAGES:
            table.add_row(*self._render_row(stage))
        head = Text(f"adaptd demo   {self._time_elapsed()}   {self._time_left()}")
        return Group(head, Text(), table, Text(), *(Text(line) for line in self._news))

    def _render_row(self, stage: Stage) -> tuple[Text, Text, Text]:
        if stage.key in self._ended:
            return Text("✓"), Text(stage.title, "dim"), Text(f"{self._spent_s(stage.key):.0f} s")
        if stage.key in self._begun:
            spent = f"{self._spent_s(stage.key):.0f} s   {self._now}"
            return Text("▸", "bold"), Text(stage.title, "bold"), Text(spent)
        return Text("·"), Text(stage.title, "dim"), Text("")
