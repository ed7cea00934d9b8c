"""Builds every part from the settings and the open store. Starts nothing."""

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from consumers.http import EventDoor
from consumers.service import IngestService, IngestSettings
from daemon.domain.errors import SettingsError
from daemon.domain.signing import derive, load_secret
from daemon.domain.tokens import TokenBook, ensure_control_token
from daemon.live import HostWatch, LiveParts, SeenPublisher
from daemon.operations import Operations
from daemon.pipeline import Pipeline, build_pipeline
from daemon.policy.book import PolicyBook
from daemon.policy.load import Limits, load_policy
from daemon.policy.watch import PolicyService
from daemon.rollout.receipt import ReceiptService
from daemon.rollout.service import RolloutService
from daemon.settings import Settings
from daemon.store.adapters import AdapterStore
from daemon.store.database import Database
from daemon.store.dead_letters import DeadLetterStore
from daemon.store.event_reads import EventReads
from daemon.store.events import EventStore
from daemon.store.halts import HaltStore
from daemon.store.policies import PolicyStore
from daemon.store.receipts import ReceiptStore
from daemon.store.rollouts import RolloutStore
from daemon.store.runs import RunStore
from daemon.store.sandbox import Sandbox
from daemon.store.surfaces import SurfaceStore
from daemon.supervision import Service, Supervisor
from daemon.web.backend import Backend
from daemon.where_check import EmptyExamplesCheck
from serving.engine import EngineState, EngineSupervisor
from serving.launch import EngineSettings
from serving.publisher import HttpPublisher
from serving.settings import GatewaySettings, write_settings
from serving.vllm import VllmHost

MAX_EVENTS_BODY_BYTES = 16 << 20


@dataclass(frozen=True)
class Keys:
    """What lies in the home folder for daemon and gateways to know each other by."""

    secret: bytes
    control_token: str

    @classmethod
    def ensure(cls, settings: Settings) -> "Keys":
        """Read them, made on first use.

        Raises:
            SettingsError: the folder cannot be written.
        """
        try:
            settings.home.mkdir(parents=True, exist_ok=True)
            secret = load_secret(settings.secret_path)
            token = ensure_control_token(settings.control_token_path, settings.tokens_path)
        except OSError as error:
            problem = f"it cannot be written ({error.strerror})"
            remedy = "Change its owner, or set ADAPTD_HOME to another folder"
            raise SettingsError(str(settings.home), problem, remedy) from error
        return cls(secret, token)


@dataclass(frozen=True)
class Base:
    """The base model that the one server serves."""

    name: str
    directory: Path


@dataclass
class Parts:
    """Everything that runs. `services` start together; `first` is done before, in milliseconds."""

    backend: Backend
    policies: PolicyService
    supervisor: Supervisor
    engine: EngineSupervisor | None
    services: dict[str, Service] = field(default_factory=dict)


async def build(settings: Settings, keys: Keys, database: Database, stack: AsyncExitStack) -> Parts:
    """Build all parts. What has to be let go of is entered into `stack`.

    Raises:
        SettingsError: a folder, a base or a setting cannot be used.
    """
    base = find_base(settings)
    url, token = settings.upstream.url, keys.control_token
    host = await stack.enter_async_context(VllmHost(url, control_token=token))
    gateways = HttpPublisher([url], token_path=settings.control_token_path)
    publisher = SeenPublisher(await stack.enter_async_context(gateways))
    engine = await _engine(settings, base, token, stack)
    book, supervisor = PolicyBook(), Supervisor()
    adapters, runs = AdapterStore(database), RunStore(database)
    receipts = ReceiptService(host, ReceiptStore(database), adapters, base_dir=base.directory)
    rollouts = RolloutService(
        database,
        book,
        host,
        receipts,
        publisher,
        bases=settings.bases,
        lease_s=settings.lease_s,
        tick_s=settings.tick_s,
    )
    sandbox = Sandbox()
    policies = _policies(settings, database, book, sandbox)
    pipeline = build_pipeline(settings, database, book, sandbox, host=host, receipts=receipts)
    events = EventStore(database, dedupe_window=timedelta(seconds=settings.dedupe_window_s))
    ingest = _ingest(settings, database, events, keys)
    live = LiveParts(
        services=supervisor.problems,
        policies=book,
        rollouts=rollouts,
        publisher=publisher,
        host=HostWatch(host, url=url),
        starting=lambda: _starting(engine),
        ingest=ingest,
        decisions=pipeline.triggers.decisions,
    )
    backend = Backend(
        tokens=TokenBook(settings.tokens_path),
        surfaces=SurfaceStore(database),
        runs=runs,
        adapters=adapters,
        rollouts=RolloutStore(database),
        dead_letters=DeadLetterStore(database),
        door=EventDoor(events, max_body_bytes=MAX_EVENTS_BODY_BYTES),
        max_body_bytes=MAX_EVENTS_BODY_BYTES,
        live=live,
        operator=Operations(runs=runs, rollouts=rollouts.operator, ingest=ingest),
    )
    services = _services(rollouts, engine, policies, ingest, pipeline)
    return Parts(backend, policies, supervisor, engine, services)


def find_base(settings: Settings) -> Base:
    """The base that the policies name, else the only one there is.

    Raises:
        SettingsError: there is none, or its directory holds no model.
    """
    wanted = [name for name in _bases_of_policies(settings) if name in settings.bases]
    name = next(iter([*wanted, *settings.bases]), None)
    if name is None:
        if not settings.upstream.manage:
            return Base("base", settings.home)  # nothing is ever trained or proven without one
        problem, remedy = "no base model is set", "Add one to adaptd.toml under [bases]"
        raise SettingsError("bases", problem, remedy)
    if not (settings.bases[name] / "config.json").is_file():
        problem = f"{settings.bases[name]} holds no model (there is no config.json)"
        remedy = "Give the directory of a model with its tokenizer, or make the base model first"
        raise SettingsError(f"bases.{name}", problem, remedy)
    return Base(name, settings.bases[name])


def _bases_of_policies(settings: Settings) -> list[str]:
    folder = settings.policies_dir
    loaded = [load_policy(path, folder=folder) for path in sorted(folder.glob("*.y*ml"))]
    return [file.policy.base for file in loaded if file.policy is not None]


async def _engine(
    settings: Settings, base: Base, token: str, stack: AsyncExitStack
) -> EngineSupervisor | None:
    """The starter of vLLM. The file its gateway reads is written for a foreign one too."""
    config = settings.home / "gateway.json"
    write_settings(config, gateway_settings(settings))
    if not settings.upstream.manage:
        return None
    asked = engine_settings(settings, base, config)
    _ = asked.port  # refuses an address that cannot be started on, before anything runs
    engine = EngineSupervisor(asked, home=settings.home, control_token=token)
    return await stack.enter_async_context(engine)


def engine_settings(settings: Settings, base: Base, gateway_config: Path) -> EngineSettings:
    upstream = settings.upstream
    shared = set(EngineSettings.__struct_fields__) & set(type(upstream).model_fields)
    return EngineSettings(
        python=settings.vllm_python or Path(sys.executable),
        base_name=base.name,
        base_dir=base.directory,
        gateway_config=gateway_config,
        **{name: getattr(upstream, name) for name in shared},
    )


def gateway_settings(settings: Settings) -> GatewaySettings:
    """What the gateway inside vLLM is told. Paths are absolute: it runs elsewhere."""
    home = settings.home.resolve()
    events_url = None
    if settings.kafka_bootstrap is None:
        events_url = f"http://{settings.listen_host}:{settings.listen_port}/v1/events"
    return GatewaySettings(
        gateway="gateway-1",
        tokens_path=settings.tokens_path.resolve(),
        control_token_path=settings.control_token_path.resolve(),
        secret_path=settings.secret_path.resolve(),
        table_path=home / "gateway" / "routes.json",
        spool_dir=home / "gateway" / "spool",
        kafka_bootstrap=settings.kafka_bootstrap,
        events_url=events_url,
    )


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


def _ingest(
    settings: Settings, database: Database, events: EventStore, keys: Keys
) -> IngestService | None:
    if settings.kafka_bootstrap is None:
        return None
    asked = IngestSettings(
        bootstrap=settings.kafka_bootstrap,
        group=settings.kafka_group,
        create_topics=settings.kafka_create_topics,
        partitions=settings.kafka_partitions,
        session_timeout_s=settings.kafka_session_timeout_s,
        unsigned_sources=frozenset(settings.kafka_unsigned_sources),
        directory=settings.home,
    )
    return IngestService(
        asked, sink=events, halts=HaltStore(database), key=derive(keys.secret, "events")
    )


def _services(
    rollouts: RolloutService,
    engine: EngineSupervisor | None,
    policies: PolicyService,
    ingest: IngestService | None,
    pipeline: Pipeline,
) -> dict[str, Service]:
    """In the order they are started: routes are published before all else (invariant 7)."""
    services: dict[str, Service] = {"rollouts": rollouts.run, "policies": policies.run}
    if engine is not None:
        services["engine"] = engine.run
    if ingest is not None:
        services["consumer"] = ingest.run
    return services | pipeline.services()


def _starting(engine: EngineSupervisor | None) -> str | None:
    """How a start of vLLM goes, in words; None where it is not starting."""
    if engine is None or engine.status.state is not EngineState.STARTING:
        return None
    status = engine.status
    left = f" of about {status.expected_s:.0f} s" if status.expected_s else ""
    return f"{status.detail or 'starting'}, {status.elapsed_s:.0f} s{left}"
