"""Processes as the kernel lists them: fields, groups, and work done."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ENDED = ("Z", "X")  # states of a process whose parent has not collected it yet
_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Share of one core. An idle vLLM or JVM stays below; one that works, though starved, above.
_IDLE_SHARE = 0.05
_IDLE_BYTES_PER_S = 10_000


class Work(NamedTuple):
    """Work of processes since they began: processor time, bytes read and written."""

    cpu_s: float
    moved_bytes: int

    def units(self, still_s: float) -> tuple[int, int]:
        """Convert to units for each of which an idle process needs longer than `still_s`.

        A working process changes them sooner, so they suit a Patience of `still_s`.
        """
        cpu = int(self.cpu_s / (_IDLE_SHARE * still_s))
        return cpu, int(self.moved_bytes / (_IDLE_BYTES_PER_S * still_s))


def stat_fields(pid: int) -> list[str] | None:
    """Read /proc/PID/stat from the third field on (state, parent, group, …); None if it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def group_members(group: int, *, since_ticks: int = 0) -> list[int]:
    """List a group's running processes that started at `since_ticks` (field 22) or later."""
    found: list[int] = []
    for entry in _PROC.iterdir():
        fields = stat_fields(int(entry.name)) if entry.name.isdigit() else None
        if fields is None or fields[0] in ENDED:
            continue
        if int(fields[2]) == group and int(fields[19]) >= since_ticks:
            found.append(int(entry.name))
    return found


def work_of(pids: list[int]) -> Work | None:
    """Sum the work of processes and their collected children; None where none of them runs."""
    found = [work for pid in pids if (work := _measure_work(pid)) is not None]
    if not found:
        return None
    return Work(sum(work.cpu_s for work in found), sum(work.moved_bytes for work in found))


def _measure_work(pid: int) -> Work | None:
    if (fields := stat_fields(pid)) is None:
        return None
    cpu_s = sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_S
    moved = 0
    with suppress(OSError):  # the process has ended since, or belongs to another user
        lines = (_PROC / str(pid) / "io").read_text().splitlines()
        counts = dict(line.split(": ") for line in lines)
        moved = int(counts["rchar"]) + int(counts["wchar"])
    return Work(cpu_s, moved)
