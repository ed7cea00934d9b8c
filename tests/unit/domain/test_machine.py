"""A process' limits on a machine, by fake folders of control groups."""

from pathlib import Path

import pytest

from adaptd.daemon.domain.machine import (
    allowed_cores,
    core_count,
    has_quota,
    memory_available_bytes,
    memory_limit_bytes,
    this_machine,
    usable_cores,
)

GIB = 1 << 30
MEMINFO = "MemTotal: 25165824 kB\nMemAvailable: 20971520 kB\n"  # 24 and 20 GiB


class Kernel:
    """Folders as the kernel shows them to one process."""

    def __init__(self, home: Path, *, groups: str) -> None:
        self.cgroups, self.proc = home / "cgroup", home / "proc"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self" / "cgroup").write_text(groups)
        (self.proc / "meminfo").write_text(MEMINFO)

    def has(self, folder: str, **files: str) -> "Kernel":
        (self.cgroups / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (self.cgroups / folder / name.replace("__", ".")).write_text(text)
        return self

    def cores(self) -> int:
        return core_count(cgroups=self.cgroups, proc=self.proc)

    def is_limited(self) -> bool:
        return has_quota(cgroups=self.cgroups, proc=self.proc)


def version_2(home: Path, path: str = "/") -> Kernel:
    return Kernel(home, groups=f"0::{path}\n")


def version_1(home: Path, path: str) -> Kernel:
    return Kernel(home, groups=f"4:memory:{path}\n2:cpu,cpuacct:{path}\n0::/\n")


ALLOWED = len(allowed_cores())


def test_without_groups_and_without_a_quota_all_allowed_cores_count(tmp_path: Path) -> None:
    bare = Kernel(tmp_path, groups="")
    unlimited = version_2(tmp_path / "two", "/app").has("app", cpu__max="max 100000\n")
    one = version_1(tmp_path / "one", "/app")
    one.has("cpu/app", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")

    for kernel in (bare, unlimited, one):
        assert kernel.cores() == min(ALLOWED, 64)
        assert not kernel.is_limited()


def test_a_quota_of_version_2_counts(tmp_path: Path) -> None:
    kernel = version_2(tmp_path, "/app").has("app", cpu__max="100000 100000\n")

    assert kernel.cores() == 1
    assert kernel.is_limited() == (ALLOWED > 1)


def test_a_quota_of_version_1_counts(tmp_path: Path) -> None:
    kernel = version_1(tmp_path, "/app")
    kernel.has("cpu/app", cpu__cfs_quota_us="50000\n", cpu__cfs_period_us="100000\n")

    assert kernel.cores() == 1
    assert kernel.is_limited()


def test_the_lowest_quota_above_a_process_counts(tmp_path: Path) -> None:
    kernel = version_2(tmp_path, "/pod/app")
    kernel.has("pod/app", cpu__max="6400000 100000\n").has("pod", cpu__max="20000 100000\n")

    assert kernel.cores() == 1
    assert kernel.is_limited()


def test_in_a_namespace_of_its_own_the_root_holds_the_quota(tmp_path: Path) -> None:
    assert version_2(tmp_path).has("", cpu__max="25000 50000\n").is_limited()


@pytest.mark.parametrize(
    ("allowed", "quota", "usable"),
    [
        (8, None, 8),
        (8, 1.5, 2),
        (8, 0.1, 1),
        (8, 2.0, 2),
        (8, 16.0, 8),
        (1, None, 1),
        (64, None, 64),
        (192, None, 64),
        (192, 96.0, 64),
    ],
)
def test_threads_follow_cores_and_quota_from_1_to_64(
    allowed: int, quota: float | None, usable: int
) -> None:
    assert usable_cores(allowed, quota) == usable


@pytest.mark.parametrize("files", [("memory.max", "memory.current"), None])
def test_memory_is_the_machines_or_less(tmp_path: Path, files: tuple[str, str] | None) -> None:
    if files:
        kernel = version_2(tmp_path, "/app")
        kernel.has("app", memory__max=f"{2 * GIB}\n", memory__current=f"{GIB}\n")
    else:
        kernel = version_1(tmp_path, "/app")
        kernel.has("memory/app", memory__limit_in_bytes=str(2 * GIB))
        kernel.has("memory/app", memory__usage_in_bytes=str(GIB))
    folders = {"cgroups": kernel.cgroups, "proc": kernel.proc}

    assert memory_limit_bytes(**folders) == 2 * GIB
    assert memory_available_bytes(**folders) == GIB
    bare = Kernel(tmp_path / "bare", groups="")
    assert memory_limit_bytes(cgroups=bare.cgroups, proc=bare.proc) == 24 * GIB
    assert memory_available_bytes(cgroups=bare.cgroups, proc=bare.proc) == 20 * GIB


def test_caches_that_the_kernel_can_drop_count_as_free(tmp_path: Path) -> None:
    kernel = version_2(tmp_path, "/app")
    kernel.has("app", memory__max=str(2 * GIB), memory__current=str(2 * GIB))
    kernel.has("app", memory__stat=f"anon 5\ninactive_file {GIB // 2}\n")

    assert memory_available_bytes(cgroups=kernel.cgroups, proc=kernel.proc) == GIB // 2


def test_this_machine_is_described() -> None:
    found = this_machine()

    assert found.processor
    assert 1 <= found.cores <= 64
    assert found.memory_bytes > GIB
