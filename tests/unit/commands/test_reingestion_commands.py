"""import, redrive and replay as an operator meets them."""

import json
from pathlib import Path

import httpx
import pytest

from tests.support.commands import RunCommand
from tests.support.daemon_world import ServedParts, token_for
from tests.support.event_samples import an_interaction, as_bytes


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """Two good lines, one that is none, and an empty one."""
    lines = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]}
        for text in (f"one of {tmp_path}", f"two of {tmp_path}")
    ]
    texts = [json.dumps(lines[0]), "{no json", "", json.dumps(lines[1])]
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join(texts))
    return file


CHAT = ("--format", "openai", "--model", "support")


def test_a_file_is_imported_once(run: RunCommand, chats: Path) -> None:
    first = run("import", str(chats), *CHAT, "--json")
    again = run("import", str(chats), *CHAT, "--json")

    assert first.code == again.code == 0, first.err + again.err
    counts = ("lines", "interactions", "refused", "reasons")
    assert [first.data[name] for name in counts] == [4, 2, 1, {"not_json": 1}]
    assert first.data["refusals"][0]["line"] == 2
    assert (again.data["lines"], again.data["interactions"]) == (4, 0)
    assert "imported before" in again.err


def test_a_file_that_grew_is_another_file_with_the_same_events(
    run: RunCommand, chats: Path
) -> None:
    run("import", str(chats), *CHAT)
    with chats.open("a") as file:
        file.write("\n" + as_bytes({"messages": []}).decode())

    grown = run("import", str(chats), *CHAT, "--json").data

    assert (grown["lines"], grown["interactions"], grown["duplicates"]) == (5, 0, 2)


def test_a_dry_run_needs_no_daemon_and_says_what_would_be_refused(
    run: RunCommand, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTD_URL", "http://127.0.0.1:9")

    tried = run("import", str(chats), *CHAT, "--dry-run")

    assert tried.code == 1
    assert tried.out.split("\t")[:2] == ["2", "not_json"]
    assert "1 would be refused: not_json" in tried.err
    assert run("import", str(chats), *CHAT).code == 3


def test_a_line_of_any_length_takes_no_more_memory(run: RunCommand, tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    good = as_bytes(an_interaction(id=f"long-{tmp_path.name}"))
    file.write_bytes(b"x" * 12_000_000 + b"\r\n" + good + b"\r\n")

    done = run("import", str(file), "--json").data

    assert (done["lines"], done["interactions"]) == (2, 1)
    assert done["reasons"] == {"too_large": 1}


def test_options_are_checked_before_anything_is_read(run: RunCommand, chats: Path) -> None:
    assert run("import", str(chats), "--format", "openai").code == 1
    assert run("import", str(chats), "--format", "odd").code == 2
    assert run("import", str(chats), "--rating", "stars=1:x").code == 2
    assert run("import", str(chats), "--time", "yesterday").code == 2
    assert run("import", "no-such-file").code == 2


def test_letters_are_counted_and_redriven(served: ServedParts, run: RunCommand) -> None:
    headers = {"Authorization": f"Bearer {token_for(served.settings, 'events')}"}
    httpx.post(f"{served.url}/v1/events", content=b'{"strange": 1}', headers=headers)
    letter = run("deadletters", "list", "--reason", "unknown_schema", "--json").data[0]
    counted = {row["reason"]: row for row in run("deadletters", "list", "--counts", "--json").data}
    assert counted["unknown_schema"]["waiting"] >= 1

    one = run("deadletters", "redrive", letter["id"])
    every = run("deadletters", "redrive", "--all", "--json")

    assert one.code == every.code == 1
    assert one.out.split("\t")[:3] == [letter["id"], "dead", "unknown_schema"]
    assert every.data["counts"]["dead"] >= 1
    assert run("deadletters", "redrive", "--reason", "no such reason").code == 0
    assert "unknown: none" in run("deadletters", "redrive", "none").err
    assert run("deadletters", "redrive").code == 2
    assert run("deadletters", "redrive", "x", "--all").code == 2


def test_a_replay_needs_a_broker_and_bounds_that_make_sense(run: RunCommand) -> None:
    refused = run("replay", "--topic", "interactions.v1")
    assert refused.code == 1
    assert "ADAPTD_KAFKA_BOOTSTRAP" in refused.err
    assert run("replay").code == 2
    assert run("replay", "--topic", "x", "--from-time", "noon").code == 2
    assert run("replay", "list", "--json").data == []
    assert run("replay", "show", "none").code == 1
    assert run("replay", "cancel", "none", "--reason", "x").code == 1
