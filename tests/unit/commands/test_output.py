"""How data looks on stdout."""

import json

import pytest

from adaptd.daemon.commands.output import cell, leaves, print_fields, print_rows


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        ("", "-"),
        (True, "yes"),
        (0, "0"),
        (0.123456, "0.1235"),
        ("two\twords\nhere", "two words here"),
        ("2026-11-22T10:00:00.123456Z", "2026-11-22T10:00:00Z"),
        ("support@v3-1f00ba42", "support@v3-1f00ba42"),
        (["a", "b"], '["a","b"]'),
        (("a", "b"), '["a","b"]'),
    ],
)
def test_a_cell_is_one_line_without_tabs(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_rows_are_tab_separated_where_stdout_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"run_id": "r1", "progress": {"step": 3}}, {"run_id": "r2", "progress": None}]
    print_rows(rows, ("run_id", "progress.step"), as_json=False)
    assert capsys.readouterr().out == "r1\t3\nr2\t-\n"


def test_json_is_the_whole_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"run_id": "r1", "more": {"é": 1}}]
    print_rows(rows, ("run_id",), as_json=True)
    assert json.loads(capsys.readouterr().out) == rows


def test_fields_print_by_their_path(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"a": {"b": 1}, "c": [{"d": 2}], "e": []}, as_json=False)
    assert capsys.readouterr().out == "a.b\t1\nc.0.d\t2\ne\t[]\n"
    assert leaves({}) == [("", {})]
