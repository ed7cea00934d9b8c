"""The demo on screen: stages with their time, what happens now, time left."""

import sys
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Stage:
    """One part of the story. `expected_s`, measured on two cores, only feeds the time left."""

    key: str
    title: str
    expected_s: float


class Screen:
    """A live table on a terminal, plain lines elsewhere."""

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        self._stages = stages
        self._started = time.monotonic()
        self._said_at = 0.0
        self._begun: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._now = ""
        self._news: deque[str] = deque(maxlen=8)
        self._console = Console(file=sys.stderr)
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=2)

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

    def begin(self, key: str) -> None:
        """A stage starts; the one before it ends."""
        moment = time.monotonic()
        for open_key in self._begun.keys() - self._ended.keys():
            self._ended[open_key] = moment
        self._begun[key] = moment
        self._now = ""
        title = next(stage.title for stage in self._stages if stage.key == key)
        self._print(f"── {title}  (about {self.left_s() / 60:.0f} min left)")

    def now(self, text: str) -> None:
        """What is going on at this moment; replaces what was said before."""
        self._now = text
        if time.monotonic() - self._said_at > 10:
            self._print(f"   … {text}")

    def news(self, text: str) -> None:
        """Something that stays worth reading."""
        self._news.append(f"{self._clock()} {text}")
        self._print(f"   {text}")

    def elapsed_s(self, key: str) -> float:
        """Seconds a stage took, or has taken so far."""
        return self._ended.get(key, time.monotonic()) - self._begun[key]

    def left_s(self) -> float:
        """Expected seconds until the end."""
        left = 0.0
        for stage in self._stages:
            if stage.key in self._ended:
                continue
            spent = self.elapsed_s(stage.key) if stage.key in self._begun else 0.0
            left += max(0.0, stage.expected_s - spent)
        return left

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60:02}:{seconds % 60:02}"

    def _print(self, text: str) -> None:
        self._said_at = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(f"{self._clock()} {text}", markup=False, highlight=False)

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for stage in self._stages:
            table.add_row(*self._row(stage))
        head = Text(f"adaptd demo   {self._clock()}   about {self.left_s() / 60:.0f} min left")
        return Group(head, Text(), table, Text(), *(Text(line) for line in self._news))

    def _row(self, stage: Stage) -> tuple[Text, Text, Text]:
        if stage.key in self._ended:
            return Text("✓"), Text(stage.title, "dim"), Text(f"{self.elapsed_s(stage.key):.0f} s")
        if stage.key in self._begun:
            spent = f"{self.elapsed_s(stage.key):.0f} s   {self._now}"
            return Text("▸", "bold"), Text(stage.title, "bold"), Text(spent)
        return Text("·"), Text(stage.title, "dim"), Text("")
