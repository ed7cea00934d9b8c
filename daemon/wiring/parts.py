"""Builds every part from the settings and the open store. Starts nothing."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from adaptd.consumers.doors.http_door import EventDoor
from adaptd.consumers.kafka.service import IngestService, IngestSettings
from adaptd.daemon.domain.meters import Meter
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.policy.load import Limits
from adaptd.daemon.policy.watch import PolicyService
from adaptd.daemon.recovery.backups import Backups
from adaptd.daemon.recovery.restored_store import Restoration
from adaptd.daemon.rollout.receipts import ReceiptService
from adaptd.daemon.rollout.service import RolloutService
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.backups.layout import Place
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.sandbox import Sandbox
from adaptd.daemon.store.examples.where_check import EmptyExamplesCheck
from adaptd.daemon.store.stores import Stores, open_stores
from adaptd.daemon.system.supervision import Service, Supervisor
from adaptd.daemon.training.calibration import ServedFormat, planned_format
from adaptd.daemon.web.backend import Backend
from adaptd.daemon.web.bodies import Bodies
from adaptd.daemon.web.ports import StatusProblem
from adaptd.daemon.wire.signing import derive
from adaptd.daemon.wire.tokens import TokenBook
from adaptd.daemon.wiring.installation import (
    GATEWAY_FILE,
    Base,
    Keys,
    calibrator_of,
    engine_settings,
    find_base,
    gateway_settings,
    store_key,
)
from adaptd.daemon.wiring.live_status import HostWatch, LiveParts, SeenPublisher
from adaptd.daemon.wiring.loop import Pipeline, PrivacyParts, build_pipeline, build_privacy
from adaptd.daemon.wiring.operator_ports import OperatorCommands, RecoveryCommands
from adaptd.daemon.wiring.rereading import Rereading, build_rereading
from adaptd.serving.gateway.settings import write_settings
from adaptd.serving.host.launch import command
from adaptd.serving.host.route_publisher import HttpPublisher
from adaptd.serving.host.supervisor import EngineState, EngineSupervisor
from adaptd.serving.host.vllm_client import VllmHost


@dataclass
class Parts:
    """Everything that runs: `services` by name, in the order in which they are started."""

    backend: Backend
    policies: PolicyService
    supervisor: Supervisor
    engine: EngineSupervisor | None
    services: dict[str, Service]


@dataclass(frozen=True)
class _Serving:
    """The daemon's side of vLLM and its gateway. `engine` is None where others start vLLM."""

    host: VllmHost
    publisher: SeenPublisher
    engine: EngineSupervisor | None
    receipts: ReceiptService
    base: Base
    served_format: ServedFormat


@dataclass(frozen=True)
class _Ingestion:
    """The two ways in for events, and the rereading. `consumer` is None without a broker."""

    door: EventDoor
    consumer: IngestService | None
    rereading: Rereading

    @property
    def meters(self) -> dict[str, Meter]:
        kafka = {"kafka": self.consumer.meter} if self.consumer else {}
        return kafka | {"http": self.door.meter}


async def build(settings: Settings, keys: Keys, database: Database, stack: AsyncExitStack) -> Parts:
    """Build all parts. Those that must be closed are entered into `stack`.

    Raises:
        SettingsError: a folder, a base or a setting cannot be used.
    """
    stores = make_stores(settings, keys, database)
    # The order follows what each part needs; nothing runs before the caller starts the services.
    book, sandbox, supervisor = PolicyBook(), Sandbox(), Supervisor()
    serving = await _build_serving(settings, keys, stores, stack)
    rollouts = _build_rollouts(settings, stores, book, serving)
    policies = _build_policies(settings, stores, book, sandbox)
    key = derive(keys.secret, "holdouts")
    pipeline = _build_stages(settings, stores, book, sandbox, serving, key)
    ingestion = _build_ingestion(settings, keys, stores)
    restoration = await _load_restoration(settings, stores, serving, ingestion)
    tokens = TokenBook(settings.tokens_path)
    live = LiveParts(
        services=supervisor.problems,
        policies=book,
        rollouts=rollouts,
        publisher=serving.publisher,
        host=_watch_host(settings, serving),
        ingest=ingestion.consumer,
        meters=ingestion.meters,
        decisions=pipeline.triggers.decisions,
        restoration=restoration,
        notices=lambda: _list_notices(serving, book, ingestion.rereading, tokens),
    )
    place = Place(settings.home, settings.policies_dir)
    backups = Backups(database, place, key=store_key(settings))
    privacy = build_privacy(settings, stores, rollouts.operator)
    backend = _build_backend(
        settings, stores, tokens, live, rollouts, ingestion, backups, restoration, privacy
    )
    services = _list_services(rollouts, policies, serving, ingestion, pipeline, restoration)
    services |= {"backups": backups.run, "orphans": stores.orphans.run}
    services |= {name: restoration.hold(run) for name, run in privacy.services().items()}
    return Parts(backend, policies, supervisor, serving.engine, services)


def make_stores(settings: Settings, keys: Keys, database: Database) -> Stores:
    """Make every repository of this installation, once, over its open store."""
    return open_stores(
        database,
        examples_folder=settings.home / "examples",
        erasure_secret=derive(keys.secret, "erasures").hex(),
        dedupe_window=timedelta(seconds=settings.dedupe_window_s),
    )


async def _build_serving(
    settings: Settings, keys: Keys, stores: Stores, stack: AsyncExitStack
) -> _Serving:
    base, token = find_base(settings), keys.control_token
    # vLLM's gateway reads this file, also in a server that others started.
    write_settings(settings.home / GATEWAY_FILE, gateway_settings(settings))
    host = VllmHost(settings.upstream.url, control_token=token)
    gateways = HttpPublisher([settings.upstream.url], token_path=settings.control_token_path)
    # In a thread: it runs the serving interpreter to ask for its device.
    engine, calibrator = None, await asyncio.to_thread(calibrator_of, settings, base)
    if settings.upstream.manage:
        asked = engine_settings(settings, base)
        command(asked)  # refuses settings that cannot start, before anything runs
        engine = EngineSupervisor(
            asked, home=settings.home, control_token=token, dtype=lambda: calibrator.ensure().dtype
        )
        await stack.enter_async_context(engine)
    await stack.enter_async_context(host)
    await stack.enter_async_context(gateways)
    receipts = ReceiptService(host, stores.receipts, stores.adapters, base_dir=base.directory)
    # A gateway without contact for a lease sends canary traffic to live: it counts as away then.
    publisher = SeenPublisher(gateways, patience_s=settings.lease_s)
    planned = partial(
        planned_format, settings.upstream.dtype, base.directory, calibrator if engine else None
    )
    started = engine.running_dtype if engine else lambda: None
    served_format = ServedFormat(host, started=started, planned=planned)
    return _Serving(host, publisher, engine, receipts, base, served_format)


def _watch_host(settings: Settings, serving: _Serving) -> HostWatch:
    starting = partial(_describe_start, serving.engine)
    return HostWatch(serving.host, url=settings.upstream.url, starting=starting)


def _build_rollouts(
    settings: Settings, stores: Stores, book: PolicyBook, serving: _Serving
) -> RolloutService:
    return RolloutService(
        stores,
        book,
        serving.host,
        serving.receipts,
        serving.publisher,
        bases=settings.bases,
        lease_s=settings.lease_s,
        tick_s=settings.tick_s,
    )


def _build_stages(
    settings: Settings,
    stores: Stores,
    book: PolicyBook,
    sandbox: Sandbox,
    serving: _Serving,
    key: bytes,
) -> Pipeline:
    return build_pipeline(
        settings,
        stores,
        book,
        sandbox,
        host=serving.host,
        receipts=serving.receipts,
        served_format=serving.served_format,
        key=key,
        waiting=serving.publisher.waiting,
    )


def _build_policies(
    settings: Settings, stores: Stores, book: PolicyBook, sandbox: Sandbox
) -> PolicyService:
    limits = Limits(bases=frozenset(settings.bases), max_rank=settings.upstream.max_lora_rank)
    return PolicyService(
        settings.policies_dir,
        book=book,
        log=stores.policies,
        limits=limits,
        where_check=EmptyExamplesCheck(stores.event_reads, sandbox),
    )


def _build_ingestion(settings: Settings, keys: Keys, stores: Stores) -> _Ingestion:
    door = EventDoor(
        stores.events,
        max_event_bytes=settings.events_max_event_bytes,
        max_batch=settings.events_max_batch,
        max_waiting_bytes=settings.events_max_waiting_bytes,
    )
    key = derive(keys.secret, "events")
    rereading = build_rereading(settings, stores, key=key)
    if settings.kafka_bootstrap is None:
        return _Ingestion(door, None, rereading)
    asked = IngestSettings(
        bootstrap=settings.kafka_bootstrap,
        security=settings.kafka_security,
        dedupe_window_s=settings.dedupe_window_s,
        group=settings.kafka_group,
        create_topics=settings.kafka_create_topics,
        partitions=settings.kafka_partitions,
        session_timeout_s=settings.kafka_session_timeout_s,
        unsigned_sources=frozenset(settings.kafka_unsigned_sources),
        directory=settings.home,
    )
    consumer = IngestService(asked, sink=stores.events, halts=stores.halts, key=key)
    return _Ingestion(door, consumer, rereading)


async def _load_restoration(
    settings: Settings, stores: Stores, serving: _Serving, ingestion: _Ingestion
) -> Restoration:
    return await Restoration.load(
        stores.restores,
        stores.routes,
        serving.publisher,
        serving.host,
        ingest=ingestion.consumer.status if ingestion.consumer else None,
        adapters=settings.adapters_dir,
        every_s=settings.tick_s,
    )


def _build_backend(  # noqa: PLR0913, PLR0917 - one argument a part
    settings: Settings,
    stores: Stores,
    tokens: TokenBook,
    live: LiveParts,
    rollouts: RolloutService,
    ingestion: _Ingestion,
    backups: Backups,
    restoration: Restoration,
    privacy: PrivacyParts,
) -> Backend:
    return Backend(
        tokens=tokens,
        surfaces=stores.status,
        runs=stores.runs,
        adapters=stores.adapters,
        rollouts=stores.rollouts,
        dead_letters=stores.dead_letters,
        door=ingestion.door,
        bodies=Bodies(
            max_body_bytes=settings.events_max_body_bytes,
            max_held_bytes=settings.events_max_waiting_bytes,
        ),
        live=live,
        rereading=ingestion.rereading,
        operator=OperatorCommands(
            runs=stores.runs,
            rollouts=rollouts.operator,
            ingest=ingestion.consumer,
            restoration=restoration,
        ),
        recovery=RecoveryCommands(backups, restoration),
        erasures=privacy.erasures,
    )


def _list_services(
    rollouts: RolloutService,
    policies: PolicyService,
    serving: _Serving,
    ingestion: _Ingestion,
    pipeline: Pipeline,
    restoration: Restoration,
) -> dict[str, Service]:
    # Routes are published before all else (invariant 7), but not those of a restored store.
    services: dict[str, Service] = {
        "restoration": restoration.run,
        "rollouts": restoration.hold(rollouts.run),
        "policies": policies.run,
    }
    if serving.engine is not None:
        services["engine"] = serving.engine.run
    if ingestion.consumer is not None:
        services["consumer"] = ingestion.consumer.run
    services |= ingestion.rereading.services()
    return services | {name: restoration.hold(run) for name, run in pipeline.services().items()}


def _describe_start(engine: EngineSupervisor | None) -> str | None:
    """Describe a start of vLLM in words; None where it is not starting."""
    if engine is None or engine.status.state is not EngineState.STARTING:
        return None
    status = engine.status
    left = f" of about {status.expected_s:.0f} s" if status.expected_s else ""
    return f"{status.detail or 'starting'}, {status.elapsed_s:.0f} s{left}"


def _list_notices(
    serving: _Serving, book: PolicyBook, rereading: Rereading, tokens: TokenBook
) -> list[StatusProblem]:
    """Report problems of vLLM's settings and base, of the outbox and of the token file."""
    found = [
        StatusProblem(
            level="error",
            what=f"policy {version.model} wants the base {version.policy.base}, and vLLM serves "
            f"{serving.base.name}",
            remedy="Use one base for every policy of a daemon",
        )
        for version in book.all()
        if version.policy.base != serving.base.name
    ]
    if serving.engine is not None and serving.engine.status.stale:
        what = "vLLM runs with other settings than those given now"
        found.append(StatusProblem(level="warning", what=what, remedy="adaptd engine restart"))
    found += rereading.notices()
    if (unread := tokens.problem) is not None:
        what = f"{unread.where}: {unread.problem}; tokens read before stay valid, revoked ones too"
        found.append(StatusProblem(level="error", what=what, remedy=unread.remedy))
    return found
