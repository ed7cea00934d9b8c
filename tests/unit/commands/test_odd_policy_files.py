"""`adaptd policy check` and the doctor tell of what is no plain file, and end as they should."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from adaptd.daemon.cli import app
from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.doctor.examine import examine
from adaptd.daemon.doctor.findings import Level
from adaptd.daemon.settings import load_settings
from tests.support.odd_files import ODD_FILES

POLICY = "version: 1\nmodel: {}\nbase: tiny\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The policy folder of an installation of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ADAPTD_LISTEN_PORT", str(free_port()))
    monkeypatch.setenv("ADAPTD_UPSTREAM__MANAGE", "false")
    monkeypatch.setenv("ADAPTD_UPSTREAM__URL", f"http://127.0.0.1:{free_port()}")
    made = tmp_path / "policies"
    made.mkdir()
    (made / "right.yaml").write_text(POLICY.format("right"))
    (made / "golden.yaml").write_text(
        POLICY.format("golden") + "curate: {holdout: {golden: odd}}\n"
    )
    return made


def check(*files: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["policy", "check", *files])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.stderr


@pytest.mark.parametrize("kind", ODD_FILES)
def test_policy_check_names_what_is_no_plain_file_and_judges_the_others(
    folder: Path, kind: str
) -> None:
    ODD_FILES[kind](folder / "odd")
    ODD_FILES[kind](folder / "odd.yaml")
    code, told = check()
    assert code == 1
    assert f"{folder}/odd.yaml:1: " in told
    assert f"{folder}/golden.yaml:4: curate.holdout.golden: " in told
    assert f"{folder}/right.yaml: fine" in told


def test_policy_check_of_a_folder_is_refused_in_words(folder: Path) -> None:
    code, told = check("policies")
    assert (code, told) == (
        1,
        "policies:1: it is a folder, not a regular file. Give a plain file.\n",
    )


def test_policy_check_of_a_folder_that_cannot_be_listed_is_refused_in_words(folder: Path) -> None:
    folder.rename(folder.with_name("aside"))
    ODD_FILES["circle of links"](folder)
    code, told = check()
    assert code == 1
    assert "it cannot be listed" in told


@pytest.mark.parametrize("kind", ODD_FILES)
def test_the_doctor_names_what_is_no_plain_file(folder: Path, kind: str) -> None:
    ODD_FILES[kind](folder / "odd")
    ODD_FILES[kind](folder / "odd.yaml")
    found = examine(load_settings(), lambda *_, **__: None, control_token=None)
    wrong = [finding.what for finding in found if finding.level is Level.ERROR]
    assert any(f"{folder}/odd.yaml:1: " in what for what in wrong)
    assert any(f"{folder}/golden.yaml:4: curate.holdout.golden: " in what for what in wrong)
