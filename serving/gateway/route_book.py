"""The route table in force on this gateway, its lease, and the assignment of units to arms."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.events import UnitKind
from adaptd.daemon.wire.files import read_regular, replace_file
from adaptd.daemon.wire.identity import own_name
from adaptd.daemon.wire.routes import VERSION_NAME, Arm, Choice, Route, RouteTable, choose
from adaptd.daemon.wire.tokens import Principal
from adaptd.serving.gateway.refusals import no_such_model, not_ready


class RouteBook:
    """One table at a time, replaced as a whole; its epoch only rises.

    A canary's weight is a lease: it holds for the table's `lease_s` after each publication by the
    daemon, by the monotonic clock. A table read back from disk holds no lease, so a gateway that
    starts alone serves live and last-good only (D11).
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lease_ends = float("-inf")
        self.table: RouteTable | None = None
        self._on_disk: RouteTable | None = None
        self._missing: set[str] = set()  # versions that the host lacked when last asked

    def load(self) -> None:
        """Load the table of the last run, where there is one.

        Raises:
            OSError, msgspec.MsgspecError: the file is there and cannot be used.
        """
        if self._path.exists():
            self.table = msgspec.json.decode(read_regular(self._path), type=RouteTable)
            self._on_disk = self.table

    @property
    def saved(self) -> bool:
        """False while the table in force is not on disk."""
        return self._on_disk is self.table

    @property
    def epoch(self) -> int:
        """0 before the first table."""
        return 0 if self.table is None else self.table.epoch

    @property
    def base(self) -> str:
        """The name that vLLM serves the base under. Needs a table."""
        assert self.table is not None
        return self.table.base

    @property
    def heard(self) -> bool:
        """True once the daemon has published to this process."""
        return self._lease_ends > float("-inf")

    def lease_held(self) -> bool:
        return self._clock() < self._lease_ends

    def apply(self, table: RouteTable) -> bool:
        """Put a table in force and renew the lease. False where it was in force already.

        The same table again is the daemon's heartbeat.

        Raises:
            RefusedError: its epoch is lower, or equal with other routes.
        """
        if self.table is not None and table != self.table and table.epoch <= self.table.epoch:
            raise RefusedError(
                "routes",
                f"epoch {table.epoch} does not follow {self.table.epoch}, which is in force",
                "Publish under a higher epoch",
            )
        changed = table != self.table
        if changed:
            self.table = table
        self._lease_ends = self._clock() + table.lease_s
        return changed

    def save(self) -> None:
        """Write the table in force to disk. Blocks; another may come into force meanwhile.

        Raises:
            OSError: it is not on disk; call again.
        """
        table = self.table
        replace_file(self._path, msgspec.json.encode(table))
        self._on_disk = table

    def find(self, model: str, principal: Principal) -> Route:
        """Find the route of an alias.

        Raises:
            RefusalError: 404 where the caller may not know of it, versions and the base included;
                503 where there is no table yet, or live has no receipt on this host yet.
        """
        if VERSION_NAME.match(model) or not principal.sees(model):
            raise no_such_model(model)
        if self.table is None:
            raise not_ready("The routes are not known yet. Try again in a moment.")
        if (route := self.table.routes.get(model)) is None:
            raise no_such_model(model)
        if not route.ready:
            raise not_ready("This model is being loaded again. Try again in a moment.")
        return route

    def assign(self, route: Route, unit: str) -> Choice:
        """Assign a unit to an arm. While the host lacks the version beside live, both weigh 0.

        Nothing is compared then: units that live answers in the other's place count for neither,
        and if live's own went on counting, the guard would see one arm only.
        """
        choice = choose(route, unit, lease_held=self.lease_held())
        beside_live = route.canary if route.canary_on else route.last_good
        is_missing = beside_live in self._missing
        return msgspec.structs.replace(choice, weight=0.0) if is_missing else choice

    def note_missing(self, choice: Choice) -> None:
        """Note that the host lacks the version of a choice."""
        if choice.adapter is not None:
            self._missing.add(choice.adapter)

    def note_answered(self, choice: Choice) -> None:
        """Note that the host answered with the version of a choice."""
        # Weight 0: it was asked after the version was missed. An answer that began before that
        # proves nothing.
        if choice.weight == 0:
            self._missing.discard(choice.adapter or "")


def live_instead(route: Route) -> Choice:
    """Choose live for a unit whose assigned version the host lacks, logged as live."""
    return Choice(adapter=route.live, arm=Arm.LIVE, weight=0.0, rollout=route.rollout)


def unit_of(
    route: Route, *, tenant: str, conversation: str | None, user: str | None, request_id: str
) -> tuple[str, UnitKind]:
    """Name the randomised unit of a request and its kind (D8).

    Names that a tenant chose carry the tenant, so that two tenants' `chat-1` are two units.
    """
    if route.split == "user" and user:
        return own_name(tenant, user), "user"
    if conversation:
        return own_name(tenant, conversation), "conversation"
    return request_id, "request"
