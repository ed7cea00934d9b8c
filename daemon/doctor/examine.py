"""Asks everybody and judges: the whole of `adaptd doctor`."""

import contextlib
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adaptd.daemon.doctor.broker import judge_topics, probe_topics
from adaptd.daemon.doctor.findings import Finding, error, note, ok
from adaptd.daemon.doctor.machine import (
    check_demo_tools,
    check_extras,
    check_home,
    judge_daemon,
    judge_memory,
    port_is_taken,
    store_is_held,
)
from adaptd.daemon.doctor.policies import suite_items
from adaptd.daemon.doctor.serving import (
    judge_bases,
    judge_format,
    judge_slots,
    judge_vllm,
    probe_vllm,
)
from adaptd.daemon.doctor.traffic import judge_maturity
from adaptd.daemon.domain.machine import memory_available_bytes, memory_limit_bytes
from adaptd.daemon.domain.memory import needed_bytes
from adaptd.daemon.evaluation.criteria import Gate
from adaptd.daemon.evaluation.power import gate_problems
from adaptd.daemon.policy.files import policy_paths
from adaptd.daemon.policy.load import Limits, Loaded, load_policy
from adaptd.daemon.policy.model import Policy
from adaptd.daemon.settings import Settings
from adaptd.daemon.training.calibration import AUTO, weights_bytes
from adaptd.daemon.wire.errors import PolicyError, SettingsError
from adaptd.daemon.wire.tokens import list_tokens
from adaptd.daemon.wiring.installation import (
    GATEWAY_FILE,
    calibrator_of,
    engine_settings,
    find_base,
)
from adaptd.serving.gateway.settings import CONFIG_VARIABLE
from adaptd.serving.host.launch import GATEWAY_CLASS, command, environment
from adaptd.serving.host.server_process import ENGINE_FILE, is_alive, read_record
from adaptd.serving.host.supervisor import cpu_cores

# Asks the running daemon for a path of its API; None where no daemon answers.
Ask = Callable[..., Any]


def examine(settings: Settings, ask: Ask, *, control_token: str | None) -> list[Finding]:
    """Every finding, in the order in which one would mend them. Takes up to a minute."""
    status = ask("/v1/status")
    files = _policy_files(settings)
    policies = [file.policy for file in files if file.policy is not None]
    return [
        *check_extras(
            settings.trainer_python,
            settings.vllm_python,
            manages_vllm=settings.upstream.manage,
        ),
        *check_home(settings.home),
        _examine_daemon(settings, answers=status is not None),
        *_examine_broker(settings),
        *_examine_policies(settings, files),
        *_examine_serving(settings, policies, control_token),
        *_examine_maturities(policies, ask),
        *_examine_tokens(settings.tokens_path),
        *_list_alerts(status),
        *check_demo_tools(),
    ]


def _examine_daemon(settings: Settings, *, answers: bool) -> Finding:
    return judge_daemon(
        f"{settings.listen_host}:{settings.listen_port}",
        daemon_answers=answers,
        port_taken=not answers and port_is_taken(settings.listen_host, settings.listen_port),
        store_held=not answers and store_is_held(settings.store_path),
    )


def _examine_broker(settings: Settings) -> list[Finding]:
    bootstrap = settings.kafka_bootstrap
    found = probe_topics(bootstrap, settings.kafka_security) if bootstrap else ""
    return judge_topics(
        bootstrap,
        found,
        creates=settings.kafka_create_topics,
        dedupe_window_s=settings.dedupe_window_s,
    )


def _policy_files(settings: Settings) -> list[Loaded]:
    folder = settings.policies_dir
    limits = Limits(bases=None, max_rank=settings.upstream.max_lora_rank)
    try:
        paths = policy_paths(folder)
    except PolicyError as problem:
        return [Loaded(folder, None, "", (problem,))]
    return [load_policy(path, folder=folder, limits=limits) for path in paths]


def _examine_policies(settings: Settings, files: list[Loaded]) -> list[Finding]:
    if not files:
        return [note("policy", f"{settings.policies_dir} holds no policy", "Run `adaptd init`")]
    found: list[Finding] = []
    for file in files:
        problems = [
            error("policy", f"{problem.where}: {problem.problem}", problem.remedy)
            for problem in file.problems
        ]
        found += problems or _examine_gate(file, settings.policies_dir)
    return found


def _examine_gate(file: Loaded, folder: Path) -> list[Finding]:
    assert file.policy is not None
    never = gate_problems(Gate.of(file.policy), suite_items(file.policy, folder))
    wrong = [error("gate", f"{file.path}: {text}", "See `adaptd policy check`") for text in never]
    return wrong or [ok("policy", f"{file.path}: alias {file.policy.model}")]


def _examine_serving(
    settings: Settings, policies: list[Policy], control_token: str | None
) -> list[Finding]:
    upstream, aliases = settings.upstream, max(1, len(policies))
    facts = probe_vllm(upstream.url, control_token)
    found = judge_vllm(upstream.url, facts, managed=upstream.manage, aliases=aliases)
    if not facts.is_vllm and upstream.manage:  # what it would be started with
        found += judge_slots(upstream.max_loras, aliases)
    wanted = [(policy.model, policy.base) for policy in policies]
    found += judge_bases(wanted, settings.bases, facts.base_root)
    found += _examine_format(settings, facts.dtype)
    if not upstream.manage:
        found.append(note("vllm", f"to start it yourself: {how_to_start(settings)}"))
    return found


def _examine_format(settings: Settings, served: str | None) -> list[Finding]:
    """Nothing where no base is known, or the server may be on another machine."""
    if not settings.upstream.manage:
        return []
    with contextlib.suppress(SettingsError, OSError):
        base = find_base(settings)
        calibrator = calibrator_of(settings, base)
        calibration = calibrator.known() or calibrator.measure()  # the daemon's own stays its own
        weights = weights_bytes(base.directory)
        needed = {name: needed_bytes(weights, name) for name in calibration.speeds}
        given = None if settings.upstream.dtype == AUTO else settings.upstream.dtype
        asked = served or _started_in(settings) or given
        found = [judge_format(asked, calibration, needed)]
        if (total := needed.get(asked or calibration.dtype)) is not None:  # None on a GPU
            found.append(_examine_memory(total, runs=served is not None))
        return found
    return []


def _started_in(settings: Settings) -> str | None:
    """The number format that a running server of ours was started in."""
    record = read_record(settings.home / ENGINE_FILE)
    return record.dtype if record is not None and is_alive(record) else None


def _examine_memory(needed: int, *, runs: bool) -> Finding:
    limit, available = memory_limit_bytes(), memory_available_bytes()
    return judge_memory(needed, limit=limit, available=available, runs=runs)


def how_to_start(settings: Settings) -> str:
    """The line that starts the server as adaptd would; `adaptd run` writes the file it names."""
    config = (settings.home / GATEWAY_FILE).resolve()
    try:
        asked = engine_settings(settings, find_base(settings))
        cores = cpu_cores(asked, os.environ)
        line = command(asked, cores=cores)
        set_by_us = environment(asked, {}, cores=cores)
    except SettingsError:  # no base yet, or a server on another machine
        line = ["vllm", "serve", "MODEL", "--enable-lora", "--middleware", GATEWAY_CLASS]
        set_by_us = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    set_by_us |= {CONFIG_VARIABLE: str(config)}
    variables = [f"{name}={value}" for name, value in sorted(set_by_us.items()) if value]
    return shlex.join([*variables, *line])


def _examine_maturities(policies: list[Policy], ask: Ask) -> list[Finding]:
    found: list[Finding] = []
    for policy in policies:
        traffic = ask("/v1/traffic", model=policy.model, hours=24 * 7)
        delays = (traffic or {}).get("delays", [])
        known = {row["arm"]: (row["count"], row["mean_s"]) for row in delays}
        if traffic is not None:
            found.append(judge_maturity(policy.model, policy.rollout.guard.maturity, known))
    return found


def _examine_tokens(path: Path) -> list[Finding]:
    try:
        applications = [entry for entry in list_tokens(path) if "chat" in entry.scopes]
    except SettingsError as problem:
        return [error("tokens", f"{problem.where}: {problem.problem}", problem.remedy)]
    if not applications:
        what = "no application has a token for the gateway yet"
        return [note("tokens", what, "Make one: adaptd token create --tenant app")]
    return [ok("tokens", f"{len(applications)} tokens may ask")]


def _list_alerts(status: dict[str, Any] | None) -> list[Finding]:
    """Alerts of the running daemon."""
    waiting = (status or {}).get("not_ready", [])
    return [
        error(part["part"], f"the daemon says: {part['problem']}", "See its log and `adaptd watch`")
        for part in waiting
    ]
