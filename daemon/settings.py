"""Process settings, read once at start from ADAPTD_* variables and `adaptd.toml`."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as UnreadableSettingsError

from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.events import DEAD_LETTERS_TOPIC
from adaptd.daemon.wire.kafka import KafkaSecurity, Mechanism, SecurityProtocol
from adaptd.daemon.wire.texts import unencodable_in

_REMEDY = "See docs/settings.md for every ADAPTD_* variable"


def _none_if_empty(given: Any) -> Any:
    """So that a variable can take back what adaptd.toml says."""
    return None if given == "" else given


class UpstreamSettings(BaseModel, frozen=True, extra="forbid"):
    """The vLLM server adaptd starts, or finds at `url`."""

    url: str = "http://127.0.0.1:8000"
    manage: bool = True  # False: somebody else starts it, adaptd only probes it
    entry_point: tuple[str, ...] = ("-m", "vllm.entrypoints.openai.api_server")
    dtype: Literal["bfloat16", "float16", "float32", "auto"] = "auto"  # what is fast here
    max_model_len: PositiveInt = 1024
    max_num_seqs: PositiveInt = 16
    max_loras: PositiveInt = 4  # D2: at least 2 x aliases + 2
    max_cpu_loras: PositiveInt = 8
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 8
    lora_target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    eager: bool = True
    kv_cache_gib: PositiveInt = 1  # CPU builds only
    extra_args: tuple[str, ...] = ()
    start_limit_s: PositiveFloat = 600


class Settings(BaseSettings):
    """Defaults run on one machine with no broker and no GPU. A bad value ends the process (2)."""

    model_config = SettingsConfigDict(
        env_prefix="ADAPTD_",
        env_nested_delimiter="__",
        toml_file="adaptd.toml",
        frozen=True,
        extra="forbid",
    )

    home: Path = Path("var")  # store, adapters, secrets, logs
    policies_dir: Path = Path("policies")
    listen_host: str = "127.0.0.1"
    listen_port: int = Field(default=8600, ge=0, le=65535)
    bases: dict[str, Path] = Field(default_factory=dict)  # name in policies -> model directory
    upstream: UpstreamSettings = UpstreamSettings()
    kafka_bootstrap: Annotated[str | None, BeforeValidator(_none_if_empty)] = (
        None  # None: events come through POST /v1/events only
    )
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    kafka_sasl_mechanism: Mechanism = "SCRAM-SHA-512"
    kafka_username: str | None = None
    kafka_password_path: Path | None = None  # None: the variable ADAPTD_KAFKA_PASSWORD
    kafka_ca_path: Path | None = None  # None: the system's authorities
    kafka_certificate_path: Path | None = None
    kafka_key_path: Path | None = None
    kafka_group: str = "adaptd"
    kafka_partitions: PositiveInt = 3  # used only where we create the topics
    kafka_create_topics: bool = False
    kafka_session_timeout_s: PositiveFloat = 10
    kafka_unsigned_sources: tuple[str, ...] = (
        "user",
    )  # what feedback without a gateway's signature may claim
    events_max_body_bytes: PositiveInt = 16 << 20  # of POST /v1/events, as sent and as unpacked
    events_max_event_bytes: int = Field(default=5_000_000, gt=0, le=5_000_000)
    events_max_batch: int = Field(default=10_000, gt=0, le=10_000)  # events in one body
    events_max_waiting_bytes: PositiveInt = 64 << 20  # of all requests together, then 429
    kafka_dead_letters_topic: str = DEAD_LETTERS_TOPIC  # empty: they stay in the store only
    dedupe_window_s: PositiveFloat = 24 * 3600
    erasure_bar_s: PositiveFloat = 90 * 24 * 3600  # longer than Kafka's retention
    erasure_rewrite_every_s: NonNegativeFloat = 0
    keep_events_s: PositiveFloat | None = None  # None: for good
    keep_dead_letters_s: PositiveFloat | None = None
    keep_snapshots_s: PositiveFloat | None = None
    keep_runs_s: PositiveFloat | None = None
    lease_s: PositiveFloat = 5
    store_memory: str = "1GB"
    store_key_path: Path | None = None  # None: the variable ADAPTD_STORE_KEY, else no encryption
    store_key_command: tuple[str, ...] = ()
    trainer_python: Path | None = None  # None: this interpreter
    vllm_python: Path | None = None
    trainer_threads: PositiveInt | None = None  # None: the cores this process may use, at most 64
    trainer_yields: bool | None = None  # None: where a CPU of this machine answers the requests
    tick_s: PositiveFloat = 1  # how often services look for work
    stop_grace_s: PositiveFloat = 30
    log_json: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over adaptd.toml."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def store_path(self) -> Path:
        return self.home / "store.duckdb"

    def trainer_gives_way(self, *, gpu: bool) -> bool:
        """True where the trainer stops while requests wait, as it would take their cores.

        `gpu` says that this machine has one: who serves there needs few of the cores.
        """
        if self.trainer_yields is not None:
            return self.trainer_yields
        here = urlsplit(self.upstream.url).hostname in ("127.0.0.1", "localhost", "::1")
        return here and not gpu

    @property
    def kafka_security(self) -> KafkaSecurity:
        return KafkaSecurity(
            protocol=self.kafka_security_protocol,
            mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_username,
            password_path=self.kafka_password_path,
            ca_path=self.kafka_ca_path,
            certificate_path=self.kafka_certificate_path,
            key_path=self.kafka_key_path,
        )

    @property
    def url(self) -> str:
        """Where programs on this machine find the daemon, even if it listens on every address."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(  # noqa: S104 - compared, not bound
            self.listen_host, self.listen_host
        )
        return f"http://{f'[{host}]' if ':' in host else host}:{self.listen_port}"

    @property
    def secret_path(self) -> Path:
        return self.home / "secret.key"

    @property
    def tokens_path(self) -> Path:
        return self.home / "tokens.json"

    @property
    def control_token_path(self) -> Path:
        return self.home / "control.token"

    @property
    def adapters_dir(self) -> Path:
        return self.home / "adapters"


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: with every wrong value at once.
    """
    try:
        settings = _absolute(Settings())
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError("settings", wrong, _REMEDY) from error
    except UnreadableSettingsError as error:  # a variable that should be JSON
        raise SettingsError("settings", str(error), _REMEDY) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError("adaptd.toml", str(error), "Correct the file") from error
    if (text := unencodable_in(settings.model_dump())) is not None:
        raise SettingsError("settings", f"{text} is not UTF-8", "Rename it, or mend the variable")
    return settings


def _absolute(settings: Settings) -> Settings:
    """Paths as every process sees them: children run in folders of their own."""
    return settings.model_copy(
        update={
            "home": settings.home.absolute(),
            "policies_dir": settings.policies_dir.absolute(),
            "bases": {name: path.absolute() for name, path in settings.bases.items()},
        }
    )
