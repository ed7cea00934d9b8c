"""adaptd's own files are UTF-8 on a machine of any locale, and no letter ends a command."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.broker import ROOT
from tests.support.waiting import LIMIT_S

# As in a locale without UTF-8: Python takes the plain "C" for UTF-8 unless it is told not to.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN_TERMINAL = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "latin-1"}
CHECK = """
import sys
from adaptd.daemon.store.database.database import Database
Database.open("store.duckdb").close()
from adaptd.daemon.cli import main
sys.argv = ["adaptd", "policy", "check", sys.argv[1]]
main()
"""

EDIT = """
import sys
from pathlib import Path
from adaptd.daemon.demo.story import replace_in_policy
replace_in_policy(Path(sys.argv[1]), "must_improve", "must_improve")
"""


def check(folder: Path, policy: Path, environment: dict[str, str], *, script: str = CHECK) -> bytes:
    """Run a script on a policy in another process; what that prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, policy],
        cwd=folder,
        env=os.environ
        | environment
        | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return done.stdout


def a_policy(path: Path) -> Path:
    example = (ROOT / "daemon/commands/examples/support.yaml").read_text("utf-8")
    path.write_text(f"# für José\n{example}", "utf-8")
    return path


def test_stores_and_policies_are_read_in_a_locale_without_utf_8(tmp_path: Path) -> None:
    assert b"must_improve" in check(tmp_path, a_policy(tmp_path / "support.yaml"), ASCII)


def test_the_demo_edits_policies_in_a_locale_without_utf_8(tmp_path: Path) -> None:
    policy = a_policy(tmp_path / "support.yaml")
    before = policy.read_bytes()
    check(tmp_path, policy, ASCII, script=EDIT)
    assert policy.read_bytes() == before


def test_a_letter_that_a_terminal_cannot_show_is_shown_as_its_code(tmp_path: Path) -> None:
    printed = check(tmp_path, a_policy(tmp_path / "žluť.yaml"), LATIN_TERMINAL)
    assert rb"\u017elu\u0165.yaml" in printed
