"""The vLLM server: whether it answers, can hold adapters, and serves the right base."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import msgspec

from adaptd.daemon.doctor.findings import Finding, error, note, ok, warning
from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.domain.calibration import Calibration
from adaptd.daemon.wire.errors import SettingsError

_LIMIT_S = 20
_MUCH_SLOWER = 1.5
# The family is announced only where vLLM was started with --enable-lora; its sample comes with the
# first request served.
_LORA_FAMILY = "vllm:lora_requests_info"
_MAX_LORAS = re.compile(rf'^{_LORA_FAMILY}\{{[^}}]*max_lora="(\d+)"', re.MULTILINE)


class VllmFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A server's own account. `max_loras` and `dtype` are None where it gives none."""

    answers: bool
    is_vllm: bool = False
    has_gateway: bool = False
    lora: bool = False
    runtime_loading: bool = False
    max_loras: int | None = None
    base: str | None = None
    base_root: str | None = None
    dtype: str | None = None


def probe_vllm(url: str, token: str | None) -> VllmFacts:
    """Ask the server with the daemon's own token. Costs it one request of one token at most."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=_LIMIT_S, trust_env=False) as client:
        try:
            version = client.get("/version")
            return _ask_vllm(client) if version.is_success else VllmFacts(answers=True)
        except httpx.ConnectError:
            return VllmFacts(answers=False)
        except (httpx.HTTPError, ValueError, KeyError):
            return VllmFacts(answers=True)


def _ask_vllm(client: httpx.Client) -> VllmFacts:
    cards = client.get("/v1/models").raise_for_status().json()["data"]
    base = next((card for card in cards if not card.get("parent")), {})
    metrics = client.get("/metrics").text
    if _LORA_FAMILY in metrics and not _MAX_LORAS.search(metrics) and base:
        asked = {"model": base["id"], "prompt": "a", "max_tokens": 1}
        client.post("/v1/completions", json=asked)
        metrics = client.get("/metrics").text
    slots = _MAX_LORAS.search(metrics)
    loading = client.post("/v1/load_lora_adapter", json={})
    state = client.get("/adaptd/state")
    return VllmFacts(
        answers=True,
        is_vllm=True,
        has_gateway=state.is_success,
        lora=_LORA_FAMILY in metrics,
        runtime_loading=loading.status_code != httpx.codes.NOT_FOUND,
        max_loras=int(slots[1]) if slots else None,
        base=base.get("id"),
        base_root=base.get("root"),
        dtype=state.json().get("dtype") if state.is_success else None,
    )


def judge_vllm(url: str, facts: VllmFacts, *, managed: bool, aliases: int) -> list[Finding]:
    """Say whether this server can do what adaptd asks of it."""
    if not facts.answers:
        if managed:
            return [note("vllm", f"nothing answers at {url}", "`adaptd run` starts it")]
        remedy = "Start it, set ADAPTD_UPSTREAM__URL, or let adaptd start it (manage = true)"
        return [error("vllm", f"nothing answers at {url}", remedy)]
    if not facts.is_vllm:
        what = f"port in use: what answers at {url} is not a vLLM that knows our token"
        return [error("vllm", what, "Set ADAPTD_UPSTREAM__URL to a free port or to the right one")]
    found = [*_judge_lora(facts, aliases)]
    if not facts.has_gateway:
        what = "vLLM runs without the gateway: nothing is captured and no traffic can be moved"
        remedy = (
            "Start it with --middleware adaptd.serving.middleware.Gateway and ADAPTD_GATEWAY_CONFIG"
        )
        found.append(error("gateway", what, remedy))
    return found or [ok("vllm", f"vLLM answers at {url}, with {facts.max_loras} LoRA slots")]


def _judge_lora(facts: VllmFacts, aliases: int) -> list[Finding]:
    if not facts.lora:
        return [error("vllm", "vLLM runs without LoRA", "Start it with --enable-lora")]
    found: list[Finding] = []
    if not facts.runtime_loading:
        what = "vLLM does not load adapters while it runs"
        found.append(error("vllm", what, "Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"))
    if facts.max_loras is not None:
        found += judge_slots(facts.max_loras, aliases)
    return found


def judge_slots(max_loras: int, aliases: int) -> list[Finding]:
    """Live and last good of every alias, and one canary and one candidate, stay resident (D2)."""
    needed = 2 * aliases + 2
    if max_loras >= needed:
        return []
    what = f"too few LoRA slots: {max_loras}, and {aliases} aliases need {needed}"
    remedy = f"Start vLLM with --max-loras {needed} (setting upstream.max_loras)"
    return [error("slots", what, remedy)]


def judge_format(
    dtype: str | None, calibration: Calibration, needed_bytes: Mapping[str, int]
) -> Finding:
    """Compare the number format in use, or set, with what this machine is fast in.

    A `dtype` of None is auto: the calibration decides. `needed_bytes` is the memory that serving
    and training take in each format.
    """
    dtype = dtype or calibration.dtype
    if not calibration.fingerprint:
        remedy = "Install torch and adaptd where ADAPTD_VLLM_PYTHON points, or set upstream.dtype"
        return warning("format", f"{dtype}, unmeasured: {calibration.reason}", remedy)
    choices = {
        name: speed
        for name, speed in calibration.speeds.items()
        if name != "float16" or name == calibration.dtype  # auto takes it for such bases only
    }
    fastest = max(choices, key=choices.__getitem__, default=calibration.dtype)
    slower = choices.get(fastest, 1.0) / calibration.speeds.get(dtype, choices.get(fastest, 1.0))
    if slower < _MUCH_SLOWER:
        why = f": {calibration.reason}" if dtype == calibration.dtype else ", fast enough here"
        return ok("format", f"{dtype}{why}")
    needed = needed_bytes[fastest] / 2**30
    has = calibration.machine.memory_bytes / 2**30
    what = (
        f"{dtype} is {slower:.1f} x slower here than {fastest}, which needs about {needed:.1f} GiB "
        f"of memory ({has:.1f} GiB are there)"
    )
    remedy = 'Set upstream.dtype to "auto", then `adaptd engine restart`'
    if needed > has:
        remedy = f"Give it {needed:.1f} GiB of memory, or a machine with instructions for {dtype}"
    return warning("format", what, remedy)


def judge_bases(
    wanted: Sequence[tuple[str, str]], bases: dict[str, Path], served_root: str | None
) -> list[Finding]:
    """Compare the base of every policy (alias, base) with the settings and with what is served."""
    found: list[Finding] = []
    for alias, base in wanted:
        if base not in bases:
            known = ", ".join(bases) or "none"
            what = f"policy {alias} wants the base {base}, which the settings do not know ({known})"
            remedy = f'Add it to adaptd.toml: [bases] {base} = "/path/to/the/model"'
            found.append(error("base", what, remedy))
        else:
            found += _judge_base(alias, base, bases[base], served_root)
    if len({base for _, base in wanted}) > 1:
        what = "policies name several bases, and one vLLM serves one"
        found.append(error("base", what, "Use one base for every policy of this daemon"))
    return found


def _judge_base(alias: str, base: str, path: Path, served_root: str | None) -> list[Finding]:
    try:
        digest = base_digest(path)
        served = base_digest(Path(served_root)) if served_root else None
    except SettingsError as problem:
        return [error("base", f"base {base}: {problem.where}: {problem.problem}", problem.remedy)]
    if served is not None and served != digest:
        what = (
            f"vLLM serves {served_root}, and policy {alias} wants {base} at {path}: other weights"
        )
        return [error("base", what, "Start vLLM with that base, or correct the policy")]
    return [ok("base", f"{base} of policy {alias} is at {path}")]
