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
from adaptd.daemon.store.backups.restored import RestoreStore
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.sandbox import Sandbox
from adaptd.daemon.store.examples.where_check import EmptyExamplesCheck
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.store.ingest.orphans import OrphanCount
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.store.ingest.tombstones import Tombstones
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.policies import PolicyStore
from adaptd.daemon.store.lifecycle.receipts import ReceiptStore
from adaptd.daemon.store.lifecycle.rollouts import RolloutStore
from adaptd.daemon.store.lifecycle.routes import RouteStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.status_reads import SurfaceStore
from adaptd.daemon.system.supervision import Service, Supervisor
from adaptd.daemon.training.calibration import ServedFormat, planned_format
from adaptd.daemon.web.backend import Backend
from adaptd.daemon.web.bodies import Bodies
from adaptd.daemon.web.ports import StatusProblem
from adaptd.daemon.wire.signing import derive
from adaptd.daemon.wire.tokens import TokenBook
from adaptd.daemon.wiring.erasing import ForgettingParts, build_forgetting
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
from adaptd.daemon.wiring.loop import Pipeline, build_pipeline
from adaptd.daemon.wiring.operations import Operations
from adaptd.daemon.wiring.rereading import Rereading, build_reingestion
from adaptd.daemon.wiring.upkeep import StoreUpkeep
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
    """Our side of vLLM and its gateway. `engine` is None where somebody else starts it."""

    host: VllmHost
    publisher: SeenPublisher
    engine: EngineSupervisor | None
    receipts: ReceiptService
    base: Base
    served_format: ServedFormat


@dataclass(frozen=True)
class _Ingestion:
    """The two ways in, and what comes again. `consumer` is None without a broker."""

    door: EventDoor
    consumer: IngestService | None
    again: Rereading

    @property
    def meters(self) -> dict[str, Meter]:
        kafka = {"kafka": self.consumer.meter} if self.consumer else {}
        return kafka | {"http": self.door.meter}


async def build(settings: Settings, keys: Keys, database: Database, stack: AsyncExitStack) -> Parts:
    """Build all parts. What has to be let go of is entered into `stack`.

    Raises:
        SettingsError: a folder, a base or a setting cannot be used.
    """
    book, sandbox, supervisor = PolicyBook(), Sandbox(), Supervisor()
    serving = await _serving(settings, keys, database, stack)
    rollouts = RolloutService(
        database,
        book,
        serving.host,
        serving.receipts,
        serving.publisher,
        bases=settings.bases,
        lease_s=settings.lease_s,
        tick_s=settings.tick_s,
    )
    policies = _policies(settings, database, book, sandbox)
    secret = derive(keys.secret, "erasures").hex()
    events = EventStore(
        database,
        dedupe_window=timedelta(seconds=settings.dedupe_window_s),
        tombstones=Tombstones(database, secret),
    )
    pipeline = build_pipeline(
        settings,
        database,
        book,
        sandbox,
        events,
        host=serving.host,
        receipts=serving.receipts,
        served_format=serving.served_format,
        key=derive(keys.secret, "holdouts"),
        waiting=serving.publisher.waiting,
    )
    ingestion = _ingestion(settings, keys, database, events)
    restoration = await _restoration(settings, database, serving, ingestion)
    tokens = TokenBook(settings.tokens_path)
    live = LiveParts(
        services=supervisor.problems,
        policies=book,
        rollouts=rollouts,
        publisher=serving.publisher,
        host=HostWatch(
            serving.host, url=settings.upstream.url, starting=lambda: _starting(serving.engine)
        ),
        ingest=ingestion.consumer,
        meters=ingestion.meters,
        decisions=pipeline.triggers.decisions,
        restoration=restoration,
        notices=lambda: [
            *_notices(serving, book),
            *ingestion.again.notices(),
            *_token_problem(tokens),
        ],
    )
    place = Place(settings.home, settings.policies_dir)
    backups = Backups(database, place, key=store_key(settings))
    upkeep = StoreUpkeep(backups, restoration)
    forgetting = build_forgetting(settings, database, secret, rollouts.operator)
    backend = _backend(settings, database, tokens, live, rollouts, ingestion, upkeep, forgetting)
    services = _services(rollouts, policies, serving, ingestion, pipeline, restoration)
    services["backups"] = backups.run
    services["orphans"] = OrphanCount(database).run
    services |= {name: restoration.hold(run) for name, run in forgetting.services().items()}
    return Parts(backend, policies, supervisor, serving.engine, services)


async def _serving(
    settings: Settings, keys: Keys, database: Database, stack: AsyncExitStack
) -> _Serving:
    """The file that vLLM's gateway reads is written for a server of somebody else's too."""
    base, token = find_base(settings), keys.control_token
    write_settings(settings.home / GATEWAY_FILE, gateway_settings(settings))
    host = VllmHost(settings.upstream.url, control_token=token)
    gateways = HttpPublisher([settings.upstream.url], token_path=settings.control_token_path)
    engine, calibrator = None, await asyncio.to_thread(calibrator_of, settings, base)
    if settings.upstream.manage:
        asked = engine_settings(settings, base)
        command(asked)  # refuses what cannot be started, before anything runs
        engine = EngineSupervisor(
            asked, home=settings.home, control_token=token, dtype=lambda: calibrator.ensure().dtype
        )
        await stack.enter_async_context(engine)
    await stack.enter_async_context(host)
    await stack.enter_async_context(gateways)
    receipts = ReceiptService(
        host, ReceiptStore(database), AdapterStore(database), base_dir=base.directory
    )
    publisher = SeenPublisher(gateways, patience_s=settings.lease_s)
    planned = partial(
        planned_format, settings.upstream.dtype, base.directory, calibrator if engine else None
    )
    started = engine.running_dtype if engine else lambda: None
    served_format = ServedFormat(host, started=started, planned=planned)
    return _Serving(host, publisher, engine, receipts, base, served_format)


def _policies(
    settings: Settings, database: Database, book: PolicyBook, sandbox: Sandbox
) -> PolicyService:
    limits = Limits(bases=frozenset(settings.bases), max_rank=settings.upstream.max_lora_rank)
    return PolicyService(
        settings.policies_dir,
        book=book,
        log=PolicyStore(database),
        limits=limits,
        where_check=EmptyExamplesCheck(EventReads(database), sandbox),
    )


def _ingestion(
    settings: Settings, keys: Keys, database: Database, events: EventStore
) -> _Ingestion:
    door = EventDoor(
        events,
        max_event_bytes=settings.events_max_event_bytes,
        max_batch=settings.events_max_batch,
        max_waiting_bytes=settings.events_max_waiting_bytes,
    )
    key = derive(keys.secret, "events")
    again = build_reingestion(settings, database, events, key=key)
    if settings.kafka_bootstrap is None:
        return _Ingestion(door, None, again)
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
    halts = HaltStore(database)
    return _Ingestion(door, IngestService(asked, sink=events, halts=halts, key=key), again)


async def _restoration(
    settings: Settings, database: Database, serving: _Serving, ingestion: _Ingestion
) -> Restoration:
    return await Restoration.load(
        RestoreStore(database),
        RouteStore(database),
        serving.publisher,
        serving.host,
        ingest=ingestion.consumer.status if ingestion.consumer else None,
        adapters=settings.adapters_dir,
        every_s=settings.tick_s,
    )


def _backend(
    settings: Settings,
    database: Database,
    tokens: TokenBook,
    live: LiveParts,
    rollouts: RolloutService,
    ingestion: _Ingestion,
    upkeep: StoreUpkeep,
    forgetting: ForgettingParts,
) -> Backend:
    runs = RunStore(database)
    return Backend(
        tokens=tokens,
        surfaces=SurfaceStore(database),
        runs=runs,
        adapters=AdapterStore(database),
        rollouts=RolloutStore(database),
        dead_letters=DeadLetterStore(database),
        door=ingestion.door,
        bodies=Bodies(
            max_body_bytes=settings.events_max_body_bytes,
            max_held_bytes=settings.events_max_waiting_bytes,
        ),
        live=live,
        reingestion=ingestion.again,
        operator=Operations(
            runs=runs,
            rollouts=rollouts.operator,
            ingest=ingestion.consumer,
            restoration=upkeep.restoration,
        ),
        upkeep=upkeep,
        forgetting=forgetting.erasures,
    )


def _services(
    rollouts: RolloutService,
    policies: PolicyService,
    serving: _Serving,
    ingestion: _Ingestion,
    pipeline: Pipeline,
    restoration: Restoration,
) -> dict[str, Service]:
    """Routes are published before all else (invariant 7), but not those of a restored store."""
    services: dict[str, Service] = {
        "restoration": restoration.run,
        "rollouts": restoration.hold(rollouts.run),
        "policies": policies.run,
    }
    if serving.engine is not None:
        services["engine"] = serving.engine.run
    if ingestion.consumer is not None:
        services["consumer"] = ingestion.consumer.run
    services |= ingestion.again.services()
    return services | {name: restoration.hold(run) for name, run in pipeline.services().items()}


def _starting(engine: EngineSupervisor | None) -> str | None:
    """How a start of vLLM goes, in words; None where it is not starting."""
    if engine is None or engine.status.state is not EngineState.STARTING:
        return None
    status = engine.status
    left = f" of about {status.expected_s:.0f} s" if status.expected_s else ""
    return f"{status.detail or 'starting'}, {status.elapsed_s:.0f} s{left}"


def _notices(serving: _Serving, book: PolicyBook) -> list[StatusProblem]:
    """What an operator should know of vLLM: other settings than asked for, another base."""
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
    return found


def _token_problem(tokens: TokenBook) -> list[StatusProblem]:
    if (found := tokens.problem) is None:
        return []
    what = f"{found.where}: {found.problem}; tokens read before stay valid, revoked ones too"
    return [StatusProblem(level="error", what=what, remedy=found.remedy)]
