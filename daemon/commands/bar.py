"""Progress on stderr: a bar on a terminal, else a line each tenth; nothing for what is short."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from adaptd.daemon.commands.output import say

_QUIET_S = 2.0


class Bar:
    """Told how much of `total` is done; `words` say the rest."""

    def __init__(self, what: str, *, total: int) -> None:
        self._what = what
        self._total = max(total, 1)
        self._began_s = time.monotonic()
        self._tenth = -1
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def tell(self, done: int, words: str = "") -> None:
        if time.monotonic() - self._began_s < _QUIET_S:
            return
        if not sys.stderr.isatty():
            self._tell_line(done, words)
            return
        if self._progress is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %  {task.fields[words]}"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(self._what, total=self._total, words=words)
            self._progress.start()
        self._progress.update(self._task, completed=done, words=words)

    def _tell_line(self, done: int, words: str) -> None:
        tenth = 10 * done // self._total
        if tenth != self._tenth:
            self._tenth = tenth
            say(f"{self._what}: {10 * tenth} %, {words}")
