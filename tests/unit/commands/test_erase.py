"""`adaptd erase`: what it prints and that it names nobody."""

import json

from tests.support.commands import RunCommand


def test_a_person_is_erased_and_the_report_says_what_is_left_to_do(run: RunCommand) -> None:
    told = run("erase", "--user", "ada", "--reason", "asked", "--no-wait", "--json")
    assert told.code == 0, told.err
    erasure = json.loads(told.out[told.out.index("{") :])  # the daemon here logs to stdout too
    assert erasure["state"] == "requested"

    listed = run("erasures", "list")
    assert erasure["erasure_id"] in listed.out
    assert "ada" not in listed.out.replace("adaptd", "")
    shown = run("erasures", "show", erasure["erasure_id"])
    assert f"erasure_id\t{erasure['erasure_id']}" in shown.out


def test_a_dry_run_tells_what_is_outside_our_reach(run: RunCommand) -> None:
    told = run("erase", "--user", "eve", "--dry-run")
    assert told.code == 0, told.err
    assert "interactions\t0" in told.out
    assert "outside\tbackups\t" in told.out


def test_a_reason_that_names_the_person_is_refused(run: RunCommand) -> None:
    told = run("erase", "--user", "eve", "--reason", "eve asked")
    assert told.code == 1
    assert "names the person" in told.err


def test_an_erasure_is_lifted(run: RunCommand) -> None:
    told = run("erasures", "lift", "--user", "nobody", "--reason", "a test")
    assert (told.code, told.out) == (0, "lifted\t0\n")
