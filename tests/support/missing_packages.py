"""A Python in which packages of some extras are not installed, as far as an import can tell."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable

from tests.support.broker import ROOT
from tests.support.waiting import LIMIT_S

_RUN = """
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
from adaptd.__main__ import main
main()
"""


def command_with_extras(*extras: str) -> list[str]:
    """A command line that runs `adaptd` with the base install and these extras alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += optional[extra]
    missing = _with_requirements(optional["daemon"]) - _with_requirements(wanted)
    blocked = sorted({module for package in missing for module in _modules_of(package)})
    return [sys.executable, "-c", _RUN.format(blocked=blocked)]


def run_with_extras(*extras: str, words: Iterable[str]) -> tuple[int, str]:
    """Exit code and stderr of `adaptd` with the base install and these extras alone."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("ADAPTD_")
    }
    done = subprocess.run(
        [*command_with_extras(*extras), *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    return done.returncode, done.stderr


def _with_requirements(requirements: Iterable[str]) -> set[str]:
    """Names of the packages that these requirements install, theirs included."""
    found: set[str] = set()
    left = list(requirements)
    while left:
        requirement = left.pop()
        name = re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()
        if name in found or "extra ==" in requirement:
            continue
        try:
            left += importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another system or Python
            continue
        found.add(name)
    return found


def _modules_of(package: str) -> set[str]:
    files = importlib.metadata.files(package) or []
    names = {file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py"}
    return {name for name in names if name.isidentifier()}
