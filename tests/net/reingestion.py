"""Dead letters, halts and replays of the installation, left through their stores."""

from adaptd.daemon.domain.dead_letters import LetterChoice, Redriven
from adaptd.daemon.domain.replays import Replay, ReplayRange, ReplayRequest, ReplayState
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.store.ingest.replays import ReplayStore
from tests.support.clock import Clock

_SOME = 1 << 20


async def leave_letters(database: Database, clock: Clock) -> None:
    """Of those that wait one is published, one was redriven and one is dead again."""
    letters = DeadLetterStore(database, clock=clock)
    waiting, _ = await letters.waiting(LetterChoice(), limit=10, max_bytes=_SOME)
    fates = [("stored", None, None), ("dead", "not_json", "again")]
    results = [
        Redriven(
            id=letter.id,
            received_at=letter.received_at,
            result=result,
            reason=reason,
            detail=detail,
        )
        for letter, (result, reason, detail) in zip(waiting, fates, strict=False)
    ]
    await letters.settle(results, buried_again=[])
    await letters.mark_published(waiting[:1])


async def leave_halts(database: Database, clock: Clock) -> None:
    """One that was lifted and one in force."""
    halts = HaltStore(database, clock=clock)
    await halts.record("offsets are gone", {"lost": 7})
    await halts.clear(actor="operator:ada", reason="accepted")
    await halts.record("the broker is another one", {"was": "c", "is": "d"})


async def leave_replays(database: Database, clock: Clock) -> None:
    """One that is done and one that waits."""
    replays = ReplayStore(database, clock=clock)
    await replays.add(_a_replay("replay-1111111111", clock))
    await replays.finish("replay-1111111111", ReplayState.DONE, actor="daemon")
    await replays.add(_a_replay("replay-2222222222", clock))
    await replays.note("replay-2222222222", "the broker is away")


def _a_replay(replay_id: str, clock: Clock) -> Replay:
    part = ReplayRange(topic="events", partition=0, topic_id="topic-id", start=2, end=9, gone=1)
    return Replay(
        replay_id=replay_id,
        state=ReplayState.RUNNING,
        asked=ReplayRequest(topics=["events"], from_offset=1, to_offset=9),
        ranges=[part],
        actor="operator:ada",
        reason="a fixed decoder",
        created_at=clock(),
    )
