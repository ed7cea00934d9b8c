"""The whole suite on other days: `make test-dates`, under Debian's faketime.

    python -m tests.dates                                    # everything, at every moment
    python -m tests.dates --at 2028-02-29 -- tests/unit -q   # some of it, at one

All processes of a run share one offset, so one clock that goes on. The monotonic clock is real, as
waits need it, and so are the times of files: Python compares its compiled modules with their
sources by them. Folders of tests are kept apart from other runs', whose age would be taken for
years.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLEEP = Path(__file__).with_name("sleep.c")
REMEDY = "apt-get install faketime gcc"
# `-m` is the variant for threads. The last words put ours before what the wrapper preloads.
FAKETIME = ("faketime", "-m", "--exclude-monotonic")
PRELOAD = ("sh", "-c", 'export LD_PRELOAD="$0:$LD_PRELOAD"; exec "$@"')
# Java waits for ever, or not at all, where libfaketime moves the times its conditions wait until.
QUIRKS = {"NO_FAKE_STAT": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0"}
PROBE = """
import sys, threading, time
began = time.monotonic()
time.sleep(0.2)
threading.Event().wait(0.2)
sys.exit(not (abs(time.time() - float(sys.argv[1])) > 86_400 and time.monotonic() - began < 5))
"""


@dataclass(frozen=True)
class Moment:
    at: str
    zone: str | None = None
    why: str = ""


MOMENTS = (
    Moment("2027-03-28 01:59:30", "Europe/Madrid", "an hour is left out half a minute later"),
    Moment("2028-02-29", why="a leap day"),
    Moment("2031-01-01", why="years on"),
    Moment("1 year ago", why="before all that the tests were written with"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.dates")
    parser.add_argument("--at", action="append", help="as `date --date` takes it; default: four")
    parser.add_argument("words", nargs="*", help="for pytest, after --")
    asked = parser.parse_args()
    moments = [_known(at) for at in asked.at] if asked.at else MOMENTS
    words = asked.words or ["-q", "-n", "2", "--dist", "loadgroup"]
    for tool in ("faketime", "gcc"):
        if shutil.which(tool) is None:
            print(f"{tool} is missing: {REMEDY}", file=sys.stderr)  # noqa: T201
            return 2
    with tempfile.TemporaryDirectory(prefix="dates-") as folder:
        ours = Path(folder) / "sleep.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O", "-o", ours, SLEEP], check=True)
        codes = [_test(moment, words, ours, Path(folder)) for moment in moments]
    return max(codes)


def _known(at: str) -> Moment:
    return next((moment for moment in MOMENTS if moment.at == at), Moment(at))


def _test(moment: Moment, words: Sequence[str], ours: Path, folder: Path) -> int:
    print(f"\n== {moment.at} {moment.zone or ''} {moment.why}", flush=True)  # noqa: T201
    temporary = Path(tempfile.mkdtemp(dir=folder))
    env = os.environ | QUIRKS | {"PYTEST_DEBUG_TEMPROOT": str(temporary)}
    if moment.zone:
        env["TZ"] = moment.zone
    under = [*FAKETIME, moment.at, *PRELOAD, str(ours)]
    here = str(subprocess.check_output(["date", "+%s"], text=True)).strip()
    if subprocess.run([*under, sys.executable, "-c", PROBE, here], env=env, check=False).returncode:
        print(f"faketime does not fake {moment.at} on this machine", file=sys.stderr)  # noqa: T201
        return 2
    command = [*under, sys.executable, "-m", "pytest", *words]
    return subprocess.run(command, env=env, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
