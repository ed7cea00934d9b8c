"""The broker's jars: fetched once with Maven, kept in a folder, found again without it."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from adaptd.daemon.demo.children import run_to_end
from adaptd.daemon.wire.errors import AdaptdError

POM = Path(__file__).resolve().parents[2] / "deploy" / "kafka" / "pom.xml"
_JAVA_NEEDED = 17  # Kafka 4 brokers
_COMPLETE = ".complete"  # written last: the pom the folder was filled from


def find_java() -> str:
    """The path of a Java that runs Kafka 4.

    Raises:
        AdaptdError: there is none, or it is too old.
    """
    remedy = f"Install a Java {_JAVA_NEEDED} runtime (on Debian: openjdk-17-jre-headless)"
    java = shutil.which("java")
    if java is None:
        raise AdaptdError("kafka", f"Java {_JAVA_NEEDED} is not installed", remedy)
    asked = subprocess.run(
        [java, "-version"], capture_output=True, text=True, timeout=30, check=False
    )
    found = re.search(r'version "(\d+)', asked.stderr + asked.stdout)
    if found is None or int(found[1]) < _JAVA_NEEDED:
        version = found[1] if found else "unknown"
        raise AdaptdError("kafka", f"Java {version} is older than {_JAVA_NEEDED}", remedy)
    return java


def fetch_jars(folder: Path, *, pom: Path = POM) -> Path:
    """Fill `folder` with the broker's jars. Returns at once where a whole set is there already.

    Raises:
        AdaptdError: Maven is missing, or could not fetch.
    """
    folder = folder.resolve()  # Maven would take it from the pom's folder
    if _is_complete(folder, pom):
        return folder
    mvn = shutil.which("mvn")
    if mvn is None:
        remedy = "Install it (on Debian: maven), or give a broker with ADAPTD_KAFKA_BOOTSTRAP"
        raise AdaptdError("kafka", "Maven is not installed", remedy)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".jars-") as scratch:
        fresh = Path(scratch) / "jars"
        _copy_dependencies(mvn, pom, fresh, log=folder.parent / "maven.log")
        (fresh / _COMPLETE).write_bytes(pom.read_bytes())
        _swap_in(fresh, folder, pom)
    return folder


def _is_complete(folder: Path, pom: Path) -> bool:
    marker = folder / _COMPLETE
    return marker.exists() and marker.read_bytes() == pom.read_bytes()


def _copy_dependencies(mvn: str, pom: Path, out: Path, *, log: Path) -> None:
    command = [mvn, "--batch-mode", "--no-transfer-progress", "--file", str(pom)]
    command += ["dependency:copy-dependencies", f"-DoutputDirectory={out}"]
    if (code := run_to_end(command, what="Maven", log=log)) != 0:
        problem = f"Maven failed (exit code {code}) and brought no jars of the broker"
        raise AdaptdError("kafka", problem, f"See its output in {log}")


def _swap_in(fresh: Path, folder: Path, pom: Path) -> None:
    """Put the new folder in place; where another process was first, its folder stays."""
    if folder.exists() and not _is_complete(folder, pom):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        fresh.rename(folder)
    except OSError:
        if not _is_complete(folder, pom):
            raise
