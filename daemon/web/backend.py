"""All that the API stands on, gathered by the composition root."""

from dataclasses import dataclass

from daemon.domain.erasures import Forgetting
from daemon.domain.reingestion import Reingestion
from daemon.store.adapters import AdapterStore
from daemon.store.dead_letters import DeadLetterStore
from daemon.store.rollouts import RolloutStore
from daemon.store.runs import RunStore
from daemon.store.surfaces import SurfaceStore
from daemon.web.auth import Tokens
from daemon.web.bodies import Bodies
from daemon.web.ports import Door, Live, Operator, Upkeep


@dataclass(frozen=True)
class Backend:
    """Stores to read from, the living parts, and what may be done.

    `bodies` reads what is posted to /v1/events, within its limits.
    """

    tokens: Tokens
    surfaces: SurfaceStore
    runs: RunStore
    adapters: AdapterStore
    rollouts: RolloutStore
    dead_letters: DeadLetterStore
    door: Door
    bodies: Bodies
    live: Live
    operator: Operator
    reingestion: Reingestion
    upkeep: Upkeep
    forgetting: Forgetting
