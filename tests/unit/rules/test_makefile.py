"""The Makefile's environments import the package of this checkout."""

import subprocess

from tests.support.broker import ROOT


def test_the_peers_of_the_benchmark_find_the_package() -> None:
    """.venv lends its packages by a .pth file, and no .pth file is read through another one."""
    command = ["make", "-n", "-B", ".venv-bench/installed"]
    rule = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    writes = next(line for line in rule.splitlines() if "purelib" in line)
    assert str(ROOT / "src") in writes
