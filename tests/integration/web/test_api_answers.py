"""What the API says: events and what became of them, status, probes, metrics."""

import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import zstandard

from adaptd.daemon.domain.states import RunState
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.web.metrics import METRICS
from tests.support.daemon_world import ServedParts, token_for

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def client(served: ServedParts) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {served.control_token}"}
    with httpx.Client(base_url=served.url, headers=headers) as client:
        yield client


def an_interaction(number: int) -> dict[str, Any]:
    return {
        "schema": "adaptd.interaction/1",
        "id": f"i-{number}",
        "time": (NOW + timedelta(seconds=number)).isoformat(),
        "model": "support",
        "unit": f"c-{number}",
        "tags": {"product": "cards"},
    }


def a_rating(number: int, value: int = -1) -> dict[str, Any]:
    return {
        "schema": "adaptd.feedback/1",
        "id": f"f-{number}",
        "time": (NOW + timedelta(seconds=number + 10)).isoformat(),
        "interaction": f"i-{number}",
        "kind": "rating",
        "value": value,
    }


def send(
    served: ServedParts, body: bytes, content_type: str, *, token: str = "", encoding: str = ""
) -> httpx.Response:
    token = token or token_for(served.settings, "events")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
    headers |= {"Content-Encoding": encoding} if encoding else {}
    return httpx.post(f"{served.url}/v1/events", content=body, headers=headers)


def test_events_are_answered_one_by_one_and_a_repeat_is_a_duplicate(served: ServedParts) -> None:
    events = [an_interaction(1), a_rating(1), {"schema": "adaptd.feedback/9"}]
    body = json.dumps(events).encode()
    first = send(served, body, "application/json")
    again = send(served, body, "application/json")
    assert first.status_code == again.status_code == 200
    assert [r["result"] for r in first.json()["results"]] == ["stored", "stored", "dead_letter"]
    assert [r["result"] for r in again.json()["results"]][:2] == ["duplicate", "duplicate"]


def test_ndjson_is_one_event_a_line(served: ServedParts) -> None:
    body = b"\n".join(json.dumps(an_interaction(n)).encode() for n in range(100, 120))
    answer = send(served, body, "application/x-ndjson")
    assert {r["result"] for r in answer.json()["results"]} == {"stored"}
    assert len(answer.json()["results"]) == 20


def test_a_body_without_a_usable_event_is_422_and_kept(
    served: ServedParts, client: httpx.Client
) -> None:
    answer = send(served, b'{"schema": "something/1"}', "application/json")
    assert answer.status_code == 422
    assert answer.json()["results"][0]["result"] == "dead_letter"
    letter = client.get("/v1/deadletters?limit=1").json()[0]
    shown = client.get(f"/v1/deadletters/{letter['id']}").json()
    assert shown["text"] == '{"schema": "something/1"}'


def test_a_gateway_is_not_asked_to_send_dead_letters_again(served: ServedParts) -> None:
    answer = send(served, b"{}", "application/json", token=served.control_token)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 422), (b"  \n", 422), (b" " * ((16 << 20) + 1), 413)]
)
def test_empty_and_huge_bodies_are_refused(served: ServedParts, body: bytes, status: int) -> None:
    answer = send(served, body, "application/json")
    assert answer.status_code == status
    assert answer.json()["error"]["remedy"]


def test_more_events_than_one_body_may_have_are_413(served: ServedParts) -> None:
    answer = send(served, b"{}\n" * 100_001, "application/x-ndjson")
    assert answer.status_code == 413
    assert answer.json()["error"]["remedy"] == "Send it in parts"


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "GZIP"])
def test_a_packed_body_is_unpacked(served: ServedParts, encoding: str) -> None:
    lines = b"\n".join(json.dumps(an_interaction(n)).encode() for n in range(700, 710))
    pack = gzip.compress if encoding.lower() == "gzip" else zstandard.ZstdCompressor().compress
    answer = send(served, pack(lines), "application/x-ndjson", encoding=encoding)
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 10
    assert {result["result"] for result in answer.json()["results"]} <= {"stored", "duplicate"}


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        pytest.param(gzip.compress(b" " * (64 << 20)), "gzip", 413, id="gzip bomb"),
        pytest.param(
            zstandard.ZstdCompressor().compress(b" " * (64 << 20)), "zstd", 413, id="zstd bomb"
        ),
        pytest.param(gzip.compress(b"{}")[:-4], "gzip", 400, id="cut"),
        (b"{}", "zstd", 400),
        (b"{}", "br", 415),
        (b"{}", "gzip, gzip", 415),
    ],
)
def test_bodies_that_cannot_be_unpacked_are_refused(
    served: ServedParts, body: bytes, encoding: str, status: int
) -> None:
    answer = send(served, body, "application/json", encoding=encoding)
    assert answer.status_code == status
    assert answer.json()["error"]["remedy"]


def test_bytes_that_are_not_text_are_shown_as_base64(
    served: ServedParts, client: httpx.Client
) -> None:
    send(served, b"\xff\xfe", "application/json")
    letter = client.get("/v1/deadletters?limit=1").json()[0]
    assert client.get(f"/v1/deadletters/{letter['id']}").json()["base64"] == "//4="


def test_readyz_names_what_is_missing_and_healthz_does_not_care(client: httpx.Client) -> None:
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert {"vllm", "gateway"} <= set(ready.json()["not_ready"])
    assert ready.json()["halted"] is False
    assert client.get("/healthz").json() == {"status": "ok"}


def test_status_has_the_policy_in_force_and_what_it_waits_for(client: httpx.Client) -> None:
    status = client.get("/v1/status").json()
    assert status["ready"] is False
    assert {part["part"] for part in status["not_ready"]} >= {"vllm", "gateway"}
    model = next(model for model in status["models"] if model["model"] == "support")
    assert model["policy"]["version"] == 1
    assert model["live"] is None
    assert client.get("/v1/policies").json()[0]["yaml"].startswith("version: 1")


def test_a_run_is_shown_with_its_history(served: ServedParts, client: httpx.Client) -> None:
    runs = RunStore(served.database)
    run = served.run(
        runs.create(
            "other", policy_version=1, trigger={"why": "x"}, start_from=None, actor="t", now=NOW
        )
    )
    cancelled = RunState.CANCELLED
    served.run(runs.move(run.run_id, cancelled, actor="t", reason="enough", now=NOW))
    shown = client.get(f"/v1/runs/{run.run_id}").json()
    assert shown["trigger"] == {"why": "x"}
    assert [change["to_state"] for change in shown["history"]] == ["queued", "cancelled"]
    assert shown["history"][1]["reason"] == "enough"
    assert [r["run_id"] for r in client.get("/v1/runs?model=other").json()] == [run.run_id]
    assert client.get("/v1/runs?model=nobody").json() == []


def test_traffic_counts_units_and_delays_of_the_gateways_rows_only(
    served: ServedParts, client: httpx.Client
) -> None:
    events = [an_interaction(n) for n in (501, 502)] + [a_rating(501), a_rating(502, 1)]
    for event in events:
        event["model"] = "traffic" if "model" in event else None
    body = json.dumps([{k: v for k, v in e.items() if v is not None} for e in events]).encode()
    send(served, body, "application/json")  # an application's own: can train, never guard
    assert client.get("/v1/traffic?model=traffic").json()["units"] == 0
    for event in events:
        event["id"] += "-g"
        if "interaction" in event:
            event["interaction"] += "-g"
    body = json.dumps([{k: v for k, v in e.items() if v is not None} for e in events]).encode()
    send(served, body, "application/json", token=served.control_token)
    traffic = client.get("/v1/traffic?model=traffic").json()
    assert (traffic["units"], traffic["negative_units"]) == (2, 1)
    delays = {row["arm"]: row for row in traffic["delays"]}
    assert delays["live"]["mean_s"] == pytest.approx(10)


def test_what_the_door_did_is_in_metrics_and_status(
    served: ServedParts, client: httpx.Client
) -> None:
    events = [an_interaction(950), an_interaction(950), a_rating(951)]
    send(served, json.dumps(events).encode(), "application/json")
    text = client.get("/metrics").text
    assert re.search(r'adaptd_ingest_commit_seconds_count\{source="http"\} [1-9]', text)
    assert re.search(r'adaptd_ingest_batch_events_bucket\{le="10.0",source="http"\} [1-9]', text)
    assert re.search(r'adaptd_ingest_duplicates_total\{source="http"\} [1-9]', text)
    ingest = client.get("/v1/ingest").json()
    assert ingest["timing"]["http"]["commit_p99_ms"] > 0
    assert ingest["duplicates"] >= 1


def test_metrics_have_the_documented_names_and_labels_only(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = dict(re.findall(r"^# TYPE (adaptd_\w+) (\w+)$", answer.text, re.MULTILINE))
    assert set(families) == set(METRICS)
    assert families["adaptd_events_total"] == "counter"
    for name, labels in re.findall(r"^(adaptd_\w+)(?:\{(.*)\})? ", answer.text, re.MULTILINE):
        family = re.sub("_(bucket|count|sum|created)$", "", name)
        found = tuple(label for label in re.findall(r'(\w+)="', labels) if label != "le")
        assert found == METRICS[family if family in METRICS else name][0]
    assert 'adaptd_policy_version{model="support"} 1.0' in answer.text
    assert 'adaptd_part_ready{part="vllm"} 0.0' in answer.text


def test_no_text_of_an_event_reaches_status_or_metrics(
    served: ServedParts, client: httpx.Client
) -> None:
    secret = "the-customers-own-words"
    event = an_interaction(900) | {
        "request": {"messages": [{"role": "user", "content": secret}]},
        "user": f"user-{secret}",
        "conversation": f"c-{secret}",
    }
    send(served, json.dumps(event).encode(), "application/json")
    for path in ("/v1/status", "/metrics", "/v1/ingest", "/v1/gateways"):
        assert secret not in client.get(path).text
