"""What a log line shows of an exception: where it came from, and nothing it was given."""

import logging
import sys

import pytest

from adaptd.daemon.system.logs import frames_only, set_up_logs


def _fail_on(prompt: str) -> None:
    try:
        raise ValueError(prompt)
    except ValueError as error:
        raise RuntimeError(f"cannot store {prompt}") from error


@pytest.mark.parametrize("as_json", [True, False])
def test_a_logged_exception_shows_no_value(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()  # put back below
    handlers, level = root.handlers[:], root.level
    try:
        set_up_logs(as_json=as_json)
        try:
            _fail_on(f"my card {'-'.join('4111')}")  # not as it stands in the source
        except RuntimeError:
            logging.getLogger("somebody.else").exception("It broke")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    told = capsys.readouterr().err
    assert "It broke" in told
    assert "RuntimeError (from ValueError)" in told
    assert "4-1-1-1" not in told  # no time looks like it


def test_frames_name_file_and_function() -> None:
    try:
        _fail_on("x")
    except RuntimeError:
        kind, error, frames = sys.exc_info()
    assert kind is not None
    assert error is not None
    told = frames_only((kind, error, frames))
    assert "test_logs.py" in told
    assert "in _fail_on" in told
