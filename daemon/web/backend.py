"""All that the API stands on, gathered by the composition root."""

from dataclasses import dataclass

from adaptd.daemon.domain.ports import ErasurePort, RereadingPort
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.rollouts import RolloutStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.status_reads import StatusStore
from adaptd.daemon.web.bodies import Bodies
from adaptd.daemon.web.ports import Door, Live, Operator, RecoveryPort, Tokens


@dataclass(frozen=True)
class Backend:
    """Stores to read from, the living parts, and what may be done.

    `bodies` reads what is posted to /v1/events, within its limits.
    """

    tokens: Tokens
    surfaces: StatusStore
    runs: RunStore
    adapters: AdapterStore
    rollouts: RolloutStore
    dead_letters: DeadLetterStore
    door: Door
    bodies: Bodies
    live: Live
    operator: Operator
    rereading: RereadingPort
    recovery: RecoveryPort
    erasures: ErasurePort
