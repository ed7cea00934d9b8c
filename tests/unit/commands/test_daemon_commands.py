"""Commands against a running API: what they print, what they change, how they exit."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.domain.states import RunState
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore, Origin
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from tests.support.commands import RunCommand
from tests.support.daemon_world import ServedParts, token_for

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def a_run(served: ServedParts) -> Run:
    """A run in training, with progress."""
    runs = RunStore(served.database)
    trigger = {"reason": "230 new examples"}
    made = served.run(
        runs.create(
            "support", policy_version=1, trigger=trigger, start_from=None, actor="t", now=NOW
        )
    )
    served.run(runs.set_snapshot(made.run_id, "snapshot-1"))
    for state in (RunState.BUILDING, RunState.TRAINING):
        served.run(runs.move(made.run_id, state, actor="t", reason="test", now=NOW))
    progress = {"step": 9, "total": 36, "loss": 1.25, "tokens_per_s": 40.0, "eta_s": 60.0}
    served.run(runs.set_progress(made.run_id, progress))
    return made


@pytest.fixture(scope="module")
def an_adapter(served: ServedParts) -> AdapterRow:
    store, folder = AdapterStore(served.database), served.settings.adapters_dir
    origin = Origin(content_hash="1f00ba42" * 8, base_digest="b" * 64)
    return served.run(store.add("support", origin, folder=folder, actor="t", now=NOW))


def test_status_is_a_line_an_alias_and_its_trouble_is_on_stderr(run: RunCommand) -> None:
    shown = run("status")
    assert shown.code == 0
    assert shown.out.split("\t")[0] == "support"
    assert "NOT READY" in shown.err
    assert "not ready: vllm" in shown.err
    assert run("status", "--json").data["models"][0]["model"] == "support"


def test_status_counts_ratings_that_older_releases_stored_without_a_scale(
    run: RunCommand, served: ServedParts
) -> None:
    assert "without a scale" not in run("status").err
    count = "UPDATE unscaled_ratings SET feedback = {}"
    served.run(served.database.write(lambda cursor: cursor.execute(count.format(3))))
    assert "3 ratings without a scale" in run("status").err
    assert run("status", "--json").data["events"]["unscaled_ratings"] == 3
    served.run(served.database.write(lambda cursor: cursor.execute(count.format(0))))


def test_watch_draws_the_run_with_its_progress(run: RunCommand, a_run: Run) -> None:
    screen = run("watch", "--once").out
    assert "step 9 of 36, loss 1.250, 40 tokens/s, 60 s left" in screen
    assert a_run.run_id in screen


def test_runs_are_listed_and_shown(run: RunCommand, a_run: Run) -> None:
    fields = run("runs", "list").out.strip().split("\t")
    assert fields[:3] == [a_run.run_id, "support", "training"]
    assert fields[4:7] == ["9", "36", "1.25"]
    shown = run("runs", "show", a_run.run_id, "--json").data
    assert shown["trigger"]["reason"] == "230 new examples"
    assert "trigger.reason\t230 new examples" in run("runs", "show", a_run.run_id).out


def test_adapters_are_listed_and_shown(run: RunCommand, an_adapter: AdapterRow) -> None:
    assert run("adapters", "list").out.startswith(f"{an_adapter.name}\tsupport\tcandidate\t")
    shown = run("adapters", "show", an_adapter.name, "--json").data
    assert shown["receipts"] == []
    assert shown["history"][0]["to_state"] == "candidate"


def test_a_rollout_needs_an_accepted_version_or_a_reason(
    run: RunCommand, an_adapter: AdapterRow
) -> None:
    refused = run("rollout", "start", an_adapter.name)
    assert refused.code == 1
    assert "--override" in refused.err
    begun = run("rollout", "start", an_adapter.name, "--override", "hot fix", "--json").data[0]
    assert begun["override_reason"] == "hot fix"
    identity = begun["rollout_id"]
    assert run("rollout", "pause", identity, "--reason", "freeze").code == 0
    assert run("rollout", "show", identity, "--json").data["paused"]
    assert run("rollout", "pause", identity, "--reason", "freeze").code == 1
    assert run("rollout", "resume", identity, "--reason", "over").code == 0
    assert run("rollout", "abort", identity, "--reason", "no").code == 0
    listed = run("rollout", "list", "--model", "support").out.split("\t")
    assert (listed[0], listed[3]) == (identity, "aborted")
    history = run("rollout", "show", identity, "--json").data["history"]
    assert history[-1]["actor"].startswith("operator:")


def test_a_rollback_with_nothing_live_is_refused(run: RunCommand) -> None:
    refused = run("rollback", "support", "--reason", "complaints")
    assert refused.code == 1
    assert len(refused.err.splitlines()) == 1


def test_a_missing_reason_is_misuse(run: RunCommand) -> None:
    assert run("rollback", "support").code == 2
    assert run("runs", "cancel", "x").code == 2


def test_a_run_that_does_not_exist_is_refused_with_what_to_do(run: RunCommand) -> None:
    refused = run("runs", "show", "run-none")
    assert (refused.code, refused.out) == (1, "")
    assert "adaptd runs" in refused.err


def test_dead_letters_are_listed_and_shown(served: ServedParts, run: RunCommand) -> None:
    headers = {"Authorization": f"Bearer {token_for(served.settings, 'events')}"}
    httpx.post(f"{served.url}/v1/events", content=b'{"odd": 1}', headers=headers)
    letter = run("deadletters", "list", "--json").data[0]
    assert run("deadletters", "show", letter["id"], "--json").data["text"] == '{"odd": 1}'
    assert run("deadletters", "show", "none").code == 1


def test_ingest_without_a_broker_has_nothing_to_resume(run: RunCommand) -> None:
    assert "source\thttp" in run("ingest", "status").out
    assert run("ingest", "resume", "--reason", "x").code == 1
    assert run("ingest", "resync", "--reason", "x").code == 1


def test_no_gateway_has_answered(run: RunCommand) -> None:
    assert run("gateway", "state", "--json").data == []


def test_the_engine_is_not_stopped_where_none_of_ours_runs(run: RunCommand) -> None:
    assert run("engine", "status", "--json").data["pid"] is None
    assert run("engine", "stop").code == 1
    assert run("engine", "restart").code == 1


def test_another_token_and_another_daemon_can_be_named(
    served: ServedParts, run: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTD_TOKEN", token_for(served.settings, "read"))
    assert run("status").code == 0
    refused = run("rollback", "support", "--reason", "x")
    assert refused.code == 1
    assert "scope operate" in refused.err
    monkeypatch.setenv("ADAPTD_TOKEN", "wrong")
    assert run("status").code == 1
    monkeypatch.setenv("ADAPTD_URL", f"http://127.0.0.1:{free_port()}")
    assert run("status").code == 3


def test_policy_check_knows_the_files_and_their_mistakes(
    served: ServedParts, run: RunCommand, tmp_path: Path
) -> None:
    assert run("policy", "check").code == 0
    folder = tmp_path / "wrong"
    folder.mkdir()
    text = (served.settings.policies_dir / "support.yaml").read_text()
    (folder / "support.yaml").write_text(text.replace("base: tiny", "bass: tiny"))
    refused = run("policy", "check", str(folder / "support.yaml"))
    assert refused.code == 1
    assert f"{folder}/support.yaml:3: " in refused.err
    assert run("policy", "check", str(folder / "support.yaml"), "--json").data[0]["problems"]
    assert run("policy", "schema").data["title"] == "adaptd policy"


def test_doctor_reports_every_check_and_exits_1_on_an_error(run: RunCommand) -> None:
    found = run("doctor", "--json")
    assert found.code == 1, "no vLLM answers, and nobody starts it"
    by_check = {finding["check"]: finding for finding in reversed(found.data)}
    assert by_check["daemon"]["level"] == "ok"
    assert by_check["vllm"]["level"] == "error"
    assert by_check["maturity of support"]["level"] == "note"
    assert by_check["base"]["level"] == "ok"
    start = [finding["what"] for finding in found.data if "start it yourself" in finding["what"]]
    assert "--enable-lora" in start[0]
    assert "ADAPTD_GATEWAY_CONFIG=" in start[0]
    assert all(finding["remedy"] for finding in found.data if finding["level"] == "error")
