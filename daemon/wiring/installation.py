"""The parts of an installation outside the store: keys, the base model, vLLM's settings."""

import sys
from dataclasses import dataclass
from pathlib import Path

from adaptd.daemon.policy.files import policy_paths
from adaptd.daemon.policy.load import named_base
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.database.encryption import StoreKey, read_key
from adaptd.daemon.training import calibration
from adaptd.daemon.training.calibration import Calibrator
from adaptd.daemon.wire.errors import PolicyError, SettingsError
from adaptd.daemon.wire.signing import load_secret
from adaptd.daemon.wire.tokens import ensure_control_token
from adaptd.serving.gateway.settings import GatewaySettings
from adaptd.serving.host.builds import computes_on_cpu
from adaptd.serving.host.launch import EngineSettings

GATEWAY_FILE = "gateway.json"


@dataclass(frozen=True)
class Keys:
    """Secrets in the home folder by which daemon and gateways know each other."""

    secret: bytes
    control_token: str

    @classmethod
    def ensure(cls, settings: Settings) -> "Keys":
        """Read the keys; the first call makes them.

        Raises:
            SettingsError: the folder cannot be read or written, or the secret is not whole.
        """
        try:
            settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            secret = load_secret(settings.secret_path)
            token = ensure_control_token(settings.control_token_path, settings.tokens_path)
        except OSError as error:
            problem = f"it cannot be used ({error.strerror}: {error.filename})"
            remedy = "Change its owner, or set ADAPTD_HOME to another folder"
            raise SettingsError(str(settings.home), problem, remedy) from error
        return cls(secret, token)


def store_key(settings: Settings) -> StoreKey | None:
    """Read the key of the store; None where none is set.

    Raises:
        SettingsError: it is given twice, or cannot be used.
    """
    return read_key(path=settings.store_key_path, command=settings.store_key_command)


def open_database(settings: Settings) -> Database:
    """Open the store with its key. Only one process can.

    Raises:
        SettingsError: the key is missing, wrong, or given for a plain store.
        StoreError: another process has it open, or it cannot be opened.
    """
    key = store_key(settings)
    return Database.open(settings.store_path, key=key, memory_limit=settings.store_memory)


@dataclass(frozen=True)
class Base:
    """The base model that the one server serves."""

    name: str
    directory: Path


def find_base(settings: Settings) -> Base:
    """Find the base that the policies name, otherwise the first one set.

    A policy with a problem keeps nothing from starting, and counts here by the base it names.

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
    if not _is_model(settings.bases[name]):
        problem = f"{settings.bases[name]} holds no model (there is no config.json)"
        remedy = "Give the directory of a model with its tokenizer; see adaptd doctor"
        raise SettingsError(f"bases.{name}", problem, remedy)
    return Base(name, settings.bases[name])


def _is_model(directory: Path) -> bool:
    try:
        return (directory / "config.json").is_file()
    except OSError:  # a name that is too long, say
        return False


def _bases_of_policies(settings: Settings) -> list[str]:
    folder = settings.policies_dir
    try:
        found = [named_base(path, folder=folder) for path in policy_paths(folder)]
    except PolicyError:  # the folder cannot be listed: the part that follows it says so
        return []
    return [base for base in found if base is not None]


def engine_settings(settings: Settings, base: Base) -> EngineSettings:
    """Combine vLLM's start: the operator's settings, this base, our gateway."""
    upstream = settings.upstream
    shared = set(EngineSettings.__struct_fields__) & set(type(upstream).model_fields)
    return EngineSettings(
        python=settings.vllm_python or Path(sys.executable),
        base_name=base.name,
        base_dir=base.directory,
        gateway_config=settings.home / GATEWAY_FILE,
        **{name: getattr(upstream, name) for name in shared},
    )


def calibrator_of(settings: Settings, base: Base) -> Calibrator:
    """Make the calibrator: it measures with the serving interpreter, and keeps the result at home.

    Blocking.
    """
    python = settings.vllm_python or Path(sys.executable)
    return Calibrator(
        base.directory,
        settings.home / calibration.FILE,
        python=python,
        on_cpu=computes_on_cpu(python),
    )


def gateway_settings(settings: Settings) -> GatewaySettings:
    """Combine the settings of the gateway inside vLLM, with absolute paths: it runs elsewhere."""
    home = settings.home.resolve()
    events_url = None
    if settings.kafka_bootstrap is None:
        events_url = f"{settings.url}/v1/events"
    return GatewaySettings(
        gateway="gateway-1",
        tokens_path=settings.tokens_path.resolve(),
        control_token_path=settings.control_token_path.resolve(),
        secret_path=settings.secret_path.resolve(),
        table_path=home / "gateway" / "routes.json",
        spool_dir=home / "gateway" / "spool",
        kafka_bootstrap=settings.kafka_bootstrap,
        kafka_security=settings.kafka_security,
        events_url=events_url,
    )
