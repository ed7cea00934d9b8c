"""Processes as the kernel lists them: their fields, their groups, the work they have done."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ENDED = ("Z", "X")  # states of a process nobody has collected yet
_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Of one core. An idle vLLM or JVM stays below, one that works and is starved by others above.
_IDLE_SHARE = 0.05
_IDLE_BYTES_PER_S = 10_000


class Work(NamedTuple):
    """What processes have done since they began: processor time, bytes read and written."""

    cpu_s: float
    moved_bytes: int

    def units(self, still_s: float) -> tuple[int, int]:
        """The same in units that an idle process needs longer than `still_s` for.

        Whoever works changes them sooner: a value for a Patience of `still_s`.
        """
        cpu = int(self.cpu_s / (_IDLE_SHARE * still_s))
        return cpu, int(self.moved_bytes / (_IDLE_BYTES_PER_S * still_s))


def stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on (state, parent, group, …); None where none is."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def group_members(group: int, *, since_ticks: int = 0) -> list[int]:
    """Running processes of a group that started at `since_ticks` or later (field 22 of stat)."""
    found = []
    for entry in _PROC.iterdir():
        fields = stat_fields(int(entry.name)) if entry.name.isdigit() else None
        if fields is None or fields[0] in ENDED:
            continue
        if int(fields[2]) == group and int(fields[19]) >= since_ticks:
            found.append(int(entry.name))
    return found


def work_of(pids: list[int]) -> Work | None:
    """What they and the children they collected have done; None where none of them runs."""
    found = [work for pid in pids if (work := _work(pid)) is not None]
    if not found:
        return None
    return Work(sum(work.cpu_s for work in found), sum(work.moved_bytes for work in found))


def _work(pid: int) -> Work | None:
    if (fields := stat_fields(pid)) is None:
        return None
    cpu_s = sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_S
    moved = 0
    with suppress(OSError):  # it has ended meanwhile, or is another user's
        lines = (_PROC / str(pid) / "io").read_text().splitlines()
        counts = dict(line.split(": ") for line in lines)
        moved = int(counts["rchar"]) + int(counts["wchar"])
    return Work(cpu_s, moved)
