"""The wheel as it installs: one import package of real files, whose base needs no extra.

Built from a copy, so that no earlier build lies in it, and without the network. The requirements
come from this environment, whose editable adaptd is not found from the other one.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.broker import ROOT
from tests.support.waiting import LIMIT_S

LINKED = ("daemon", "consumers", "serving")
_BASE = """
import importlib, pkgutil, sys
for root in ("adaptd.daemon.wire", "adaptd.daemon.domain", "adaptd.serving"):
    package = importlib.import_module(root)
    for module in pkgutil.walk_packages(package.__path__, root + "."):
        importlib.import_module(module.name)
heavy = {"aiokafka", "duckdb", "fastapi", "faust", "numpy", "pyarrow", "pydantic", "torch", "typer"}
print(importlib.import_module("adaptd").__file__, *sorted(heavy & sys.modules.keys()))
"""


@dataclass(frozen=True)
class Installed:
    wheel: Path
    python: Path
    packages: Path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An empty environment outside the checkout with the wheel in it, and another `daemon`."""
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_source(folder / "source")
    run_uv(
        "build",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "-o",
        folder / "dist",
        source,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    run_uv("venv", "--python", sys.executable, folder / "venv")
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")}))
    (packages / "daemon").mkdir(parents=True)  # as python-daemon has it
    (packages / "daemon" / "__init__.py").write_text("OTHER = True\n")
    run_uv("pip", "install", "--no-deps", "--python", python, wheel)
    return Installed(wheel, python, packages)


def copy_source(into: Path) -> Path:
    """What a wheel is built from, links as links."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*LINKED, "src"):
        shutil.copytree(ROOT / name, into / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, into / name)
    return into


def run_uv(*words: str | Path) -> None:
    line = [Path(sys.executable).parent / "uv", *words, "--offline", "--quiet"]
    subprocess.run(line, cwd=ROOT, check=True, timeout=LIMIT_S)


def run_installed(installed: Installed, *line: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a line of the new environment, with its own packages alone and outside the checkout."""
    return subprocess.run(
        line,
        cwd=installed.packages.parent,
        env={name: text for name, text in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


def run_code(installed: Installed, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with this environment's packages behind the new one's."""
    line = f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n{code}"
    return run_installed(installed, installed.python, "-c", line)


def test_it_holds_every_file_of_the_three_folders_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {
        f"adaptd/{path.relative_to(ROOT)}"
        for folder in LINKED
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert names == files | {
        f"adaptd/{name}" for name in ("__init__.py", "__main__.py", "py.typed")
    }


def test_the_base_imports_without_the_packages_of_an_extra(installed: Installed) -> None:
    done = run_code(installed, _BASE)

    assert done.stderr == ""
    assert done.stdout.split() == [str(installed.packages / "adaptd" / "__init__.py")]


def test_another_package_named_daemon_stays_beside_it(installed: Installed) -> None:
    line = "import adaptd.daemon, daemon; print(daemon.OTHER, adaptd.daemon.__file__)"
    done = run_code(installed, line)

    assert done.stdout.split() == ["True", str(installed.packages / "adaptd/daemon/__init__.py")]


def test_the_command_alone_says_what_to_install(installed: Installed) -> None:
    done = run_installed(installed, installed.python.parent / "adaptd", "status")

    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'adaptd[daemon]'" in done.stderr
