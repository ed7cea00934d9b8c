"""Builds what forgets from the settings. Starts nothing."""

from dataclasses import dataclass

from adaptd.daemon.erasure.retention import RetentionService
from adaptd.daemon.erasure.service import ErasureService, Places, Rollouts, Stores
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.files import ExampleFiles
from adaptd.daemon.store.privacy.erasures import ErasureStore
from adaptd.daemon.store.privacy.retention import Kind, RetentionStore
from adaptd.daemon.system.supervision import Service


@dataclass(frozen=True)
class ForgettingParts:
    """Both work alone; they meet only in the store."""

    erasures: ErasureService
    retention: RetentionService

    def services(self) -> dict[str, Service]:
        return {"erasures": self.erasures.run, "retention": self.retention.run}


def build_forgetting(
    settings: Settings, database: Database, secret: str, rollouts: Rollouts
) -> ForgettingParts:
    """`secret`: hex, derived for erasures; see `pseudonym`."""
    places = Places(
        home=settings.home.absolute(),
        spool_dir=settings.home.absolute() / "gateway" / "spool",
        policies_dir=settings.policies_dir.absolute(),
        barred_s=settings.erasure_bar_s,
        rewrite_every_s=settings.erasure_rewrite_every_s,
        tick_s=settings.tick_s,
        letters_topic=settings.kafka_dead_letters_topic if settings.kafka_bootstrap else None,
    )
    stores = Stores(database, secret, ExampleFiles(database, settings.home / "examples"))
    erasures = ErasureService(stores, places, rollouts=rollouts)
    keep: dict[Kind, float | None] = {
        "events": settings.keep_events_s,
        "dead_letters": settings.keep_dead_letters_s,
        "snapshots": settings.keep_snapshots_s,
        "runs": settings.keep_runs_s,
    }
    kept: dict[Kind, float] = {kind: keep_s for kind, keep_s in keep.items() if keep_s is not None}
    retention = RetentionService(RetentionStore(database), ErasureStore(database, secret), kept)
    return ForgettingParts(erasures, retention)
