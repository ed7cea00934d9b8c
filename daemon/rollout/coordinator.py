"""Read rollouts and versions, write decisions, keep the routes in line with them, one at a time."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from adaptd.daemon.domain.bases import base_digest, template_digest
from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.rollout.build_table import Alias, build_routes, named_paths
from adaptd.daemon.rollout.loading import AdapterLoader
from adaptd.daemon.rollout.plan import Plan, plan_of
from adaptd.daemon.rollout.publish_table import TablePublisher
from adaptd.daemon.rollout.state import RolloutFacts
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.rollouts import Change, RolloutStore
from adaptd.daemon.wire.clock import utc_now
from adaptd.daemon.wire.errors import RefusedError, SettingsError
from adaptd.daemon.wire.routes import Route, RouteTable

_log = structlog.get_logger(__name__)


class RolloutCoordinator:
    """Every change of rollouts, versions and routes goes through here, under `lock`.

    A change and the routes that follow from it are one transaction; only then are they published.
    After a kill at any line the same routes follow from what is in the store.
    """

    def __init__(
        self,
        rollouts: RolloutStore,
        adapters: AdapterStore,
        policies: PolicyBook,
        tables: TablePublisher,
        loader: AdapterLoader,
        *,
        bases: Mapping[str, Path],
    ) -> None:
        self._rollouts = rollouts
        self._adapters = adapters
        self._policies = policies
        self._tables = tables
        self._loader = loader
        self._bases = bases
        self._digests: dict[str, tuple[str, str]] = {}
        self.lock = asyncio.Lock()
        self.present = RolloutFacts({}, {})  # as last read

    async def look(self) -> RolloutFacts:
        """Read versions and rollouts."""
        self.present = RolloutFacts.of(
            await self._adapters.list(), await self._rollouts.unfinished()
        )
        return self.present

    def plan(self, rollout: Rollout) -> Plan | None:
        """Return the plan of its policy version; None where that version is not available."""
        try:
            version = self._policies.version(rollout.model, rollout.policy_version)
        except RefusedError:
            return None
        return plan_of(version.policy)

    async def read_bases(self) -> None:
        """Read the digests of the policies' bases, once each.

        Takes a second a GB, so it never runs under `lock`: a rollback would wait for it.
        """
        for base in {version.policy.base for version in self._policies.all()}:
            directory = self._bases.get(base)
            if directory is None or base in self._digests:
                continue
            try:
                self._digests[base] = await asyncio.to_thread(_digests, directory)
            except SettingsError as error:  # a policy may name it; routes do not depend on it
                _log.error("base_unreadable", base=base, error=str(error))

    async def apply(self, change: Change) -> bool:
        """Write a change with its routes, then publish them. Call it under `lock`, after `look`.

        A rollback costs one write and one round trip. Returns True where every gateway has the
        routes by now; otherwise the heartbeat keeps trying.

        Raises:
            RefusedError: another change came first.
        """
        after = self.present.after(change)
        table = self._build_table(after)
        await self._rollouts.apply(msgspec.structs.replace(change, table=table), now=utc_now())
        self.present = after
        for move in change.rollouts:
            ids = {"rollout": move.after.rollout_id, "adapter": move.after.candidate}
            _log.info("rollout_changed", **ids, state=move.after.state, step=move.after.step)
        return await self._tables.adopt(table) if table else True

    async def reconcile(self, reason: str) -> None:
        """Bring the routes in line with the store, the host and the clock. Call it under `lock`."""
        if (table := self._build_table(await self.look())) is not None:
            await self._tables.write(table, reason=reason)
            await self._tables.adopt(table)

    def _build_table(self, present: RolloutFacts) -> RouteTable | None:
        """Build the table for these facts; None where the one in force says the same."""
        if (base := self._base_name()) is None:
            return None
        plans = {key: self.plan(rollout) for key, rollout in present.rollouts.items()}
        routes = build_routes(
            present,
            self._known_aliases(),
            {key: plan for key, plan in plans.items() if plan},
            verified=self._proven_versions(),
            now=utc_now(),
        )
        return self._tables.following(routes, base=base, paths=named_paths(present, routes))

    def _base_name(self) -> str | None:
        if self._loader.info is not None:
            return self._loader.info.base
        newest = self._newest_table()
        return newest.base if newest else None

    def _proven_versions(self) -> frozenset[str]:
        """Versions with a receipt. At start, while the host is silent, those that had one stay.

        Canaries do not stay. Live does, since live never expires (D11) and a silent host is most
        likely a busy one.
        """
        if self._loader.info is not None:
            return self._loader.verified
        newest = self._newest_table()
        routes = [r for r in newest.routes.values() if r.ready] if newest else []
        return frozenset(name for r in routes for name in (r.live, r.last_good) if name)

    def _known_aliases(self) -> list[Alias]:
        """One per policy, and those already served: a policy that is gone takes no service away.

        Digests that are still being read stay as they were served.
        """
        newest = self._newest_table()
        found = {
            name: _alias_of(route) for name, route in (newest.routes if newest else {}).items()
        }
        for version in self._policies.all():
            name, served = version.model, found.get(version.model)
            known = (served.base_digest, served.template_digest) if served else (None, None)
            base, template = self._digests.get(version.policy.base, known)
            found[name] = Alias(
                name=name,
                split=version.policy.rollout.split,
                base_digest=base,
                template_digest=template,
            )
        return [found[name] for name in sorted(found)]

    def _newest_table(self) -> RouteTable | None:
        return self._tables.table or self._tables.stored


def _digests(directory: Path) -> tuple[str, str]:
    return base_digest(directory), template_digest(directory)


def _alias_of(route: Route) -> Alias:
    return Alias(
        name=route.alias,
        split=route.split,
        base_digest=route.base_digest,
        template_digest=route.template_digest,
    )
