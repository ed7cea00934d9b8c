"""The demo's story, stage by stage, on real parts."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from adaptd.daemon.demo.customers import POISONER, CustomerTally, Desk
from adaptd.daemon.demo.screen import Screen
from adaptd.daemon.demo.texts import FIRST_QUEUES, NEW_QUEUES
from adaptd.daemon.demo.waits import Waits
from adaptd.daemon.demo.watcher import Watcher
from adaptd.daemon.demo.world import DemoError, DemoWorld
from adaptd.daemon.domain.patience import Patience

REQUESTS = 600
POISONED_REQUESTS = 320  # with 220 the gate saw too small a loss to reject it
NEW_QUEUE_REQUESTS = 270
MEASURED = 120
KILLED_AFTER_STEP = 14
UNSEEN_MEASURED = 40
_CAPPED = "per_user: 80, per_user_share: 50%"
_UNCAPPED = "per_user: 100000, per_user_share: 100%"
# As many as are asked on the reference machine. With the answers of 22 minutes, on a slow one, the
# poison of the third act was too small a share for the gate to reject: -10.7 points on golden.
_SLOW_REQUESTS = 70
_SLOW_PAUSE_S = 4.0  # between two requests while a model trains: both need the same two cores
_DOWN_S = 3.0  # between the daemon's kill and its start


@dataclass
class Story:
    """Facts gathered on the way, for the report."""

    world: DemoWorld
    screen: Screen
    desk: Desk
    waits: Waits
    watch: Watcher
    before: CustomerTally = field(default_factory=CustomerTally)
    after: CustomerTally = field(default_factory=CustomerTally)
    unseen: CustomerTally = field(default_factory=CustomerTally)
    setup_s: float = 0.0
    asking_s: float = 0.0
    first_live_s: float = 0.0
    first_run: str = ""
    poisoned_run: str = ""
    forced_rollout: str = ""
    loop_started: float = 0.0
    loop_s: float = 0.0


async def play(story: Story) -> None:
    """The whole loop, once.

    Raises:
        DemoError: in a stage nothing moved any more, or it ended otherwise than it should.
    """
    story.loop_started = time.monotonic()
    await _measure_before(story)
    await _ask_and_correct(story)
    await _first_adapter(story)
    await _poison_stage(story)
    await _force_stage(story)
    await _second_stage(story)
    await _measure_after(story)
    story.loop_s = time.monotonic() - story.loop_started


async def _measure_before(story: Story) -> None:
    story.screen.begin("before.ask")
    asked = _Asked(story, MEASURED)
    measured = story.desk.measure(MEASURED)
    story.before = await story.waits.end_of("waiting for answers", measured, asked.seen)
    if not story.before.interactions:
        problem = f"no request was answered ({story.desk.tally.failed[-1]})"
        raise DemoError("gateway", problem, f"See {story.world.engine_log}")
    story.screen.news(f"base model: {story.before.right} of {MEASURED} right")


async def _ask_and_correct(story: Story) -> None:
    story.screen.begin("ask.ask")
    asked = _Asked(story, REQUESTS)
    asking = asyncio.create_task(story.desk.ask_many(REQUESTS, queues=FIRST_QUEUES))

    async def third(patience: Patience) -> bool | None:
        patience.saw(**asked.seen())
        return True if asked.done >= REQUESTS // 3 or asking.done() else None

    try:
        await story.waits.until("waiting for answers", third)
        await story.world.kill_daemon()
        story.screen.news("daemon killed (SIGKILL) while events arrive; customers notice nothing")
        await asyncio.sleep(_DOWN_S)
        story.world.start_daemon()
        await story.waits.end_of("waiting for answers", asking, asked.seen)
    finally:
        asking.cancel()
    story.asking_s = asked.spent_s
    story.screen.news(f"{REQUESTS} requests answered, {story.desk.tally.right} right")


async def _first_adapter(story: Story) -> None:
    story.screen.begin("train.wait")
    async with _keep_asking(story, FIRST_QUEUES, slow=True):
        run = await story.watch.run_after(None)
        story.first_run = run["run_id"]
        story.screen.begin("train.train")
        story.screen.news(f"run {story.first_run} began: {run['trigger'].get('reason', '')}")
        await _kill_trainer(story)
        await story.watch.state_after(story.first_run, "training")
        story.screen.begin("train.evaluate")
        await story.watch.verdict(story.first_run, wanted="accepted")
    story.screen.begin("canary.roll_out")
    async with _keep_asking(story, FIRST_QUEUES):
        await story.watch.rollout(await story.watch.adapter_of(story.first_run), state="live")
    story.first_live_s = time.monotonic() - story.loop_started
    story.screen.news(f"first adapter live after {story.first_live_s:.0f} s")


async def _poison_stage(story: Story) -> None:
    story.screen.begin("poison.ask")
    await _edit_policy(story, _CAPPED, _UNCAPPED)
    story.screen.news(f"caps lifted by a policy edit; {POISONER} corrects every answer alike")
    await _ask_all(story, POISONED_REQUESTS, FIRST_QUEUES, poison="refund")
    story.poisoned_run = await _train_now(story, "poison", FIRST_QUEUES, wanted="rejected")
    story.screen.news("the poisoned candidate was rejected before any customer saw it")


async def _force_stage(story: Story) -> None:
    story.screen.begin("forced.roll_out")
    bad = await story.watch.adapter_of(story.poisoned_run)
    await story.world.command("rollout", "start", bad, "--override", "demo: an operator in a hurry")
    story.screen.news(f"operator forces {bad} past the gate")
    async with _keep_asking(story, FIRST_QUEUES):
        rollout = await story.watch.rollout(bad, state="rolled_back")
    story.forced_rollout = rollout["rollout_id"]
    story.screen.news("the guard took it back by itself")


async def _second_stage(story: Story) -> None:
    story.screen.begin("again.ask")
    cards = "tags['product'] = 'cards'"
    await _edit_policy(story, _UNCAPPED, _CAPPED)
    left_out = f"{cards} AND correction_user IS DISTINCT FROM '{POISONER}'"
    await _edit_policy(story, cards, left_out)
    story.screen.news(f"policy edited: caps back, {POISONER} left out; two new queues open")
    queues = NEW_QUEUES * 3 + FIRST_QUEUES
    await _ask_all(story, NEW_QUEUE_REQUESTS, queues)
    run_id = await _train_now(story, "again", queues, wanted="accepted")
    story.screen.news("a good candidate is accepted again")
    story.screen.begin("again.roll_out")
    async with _keep_asking(story, queues):
        await story.watch.rollout(await story.watch.adapter_of(run_id), state="live")
    story.screen.news("and live")


async def _measure_after(story: Story) -> None:
    story.screen.begin("after.ask")
    asked, what = _Asked(story, MEASURED + UNSEEN_MEASURED), "waiting for answers"
    story.after = await story.waits.end_of(what, story.desk.measure(MEASURED), asked.seen)
    unseen = story.desk.measure(UNSEEN_MEASURED, reserved=True)
    story.unseen = await story.waits.end_of(what, unseen, asked.seen)
    story.screen.news(f"now: {story.after.right} of {MEASURED} right")
    await _settle_feedback(story)
    tally = story.desk.tally
    await story.watch.stored(len(set(tally.interactions)) + len(set(tally.feedback)))


async def _ask_all(
    story: Story, count: int, queues: tuple[str, ...], *, poison: str | None = None
) -> None:
    """Ask, and wait for the last feedback on it."""
    asked = _Asked(story, count)
    asking = story.desk.ask_many(count, queues=queues, poison=poison)
    await story.waits.end_of("waiting for answers", asking, asked.seen)
    await _settle_feedback(story)


async def _settle_feedback(story: Story) -> None:
    """Wait for the feedback that customers and agents still mean to give."""

    def seen() -> Mapping[str, object]:
        story.screen.now(f"{story.desk.given} pieces of feedback")
        return {"feedback": story.desk.given}

    await story.waits.end_of("waiting for the last feedback", story.desk.settle(), seen)


async def _train_now(story: Story, stage: str, queues: tuple[str, ...], *, wanted: str) -> str:
    """Lift the cooldown for one run and see it to its verdict; returns the run."""
    story.screen.begin(f"{stage}.wait")
    last = await story.watch.newest_run()
    await _edit_policy(story, "cooldown: 1h", "cooldown: 2s")
    async with _keep_asking(story, queues, slow=True):
        run = await story.watch.run_after(last["run_id"])
        story.screen.begin(f"{stage}.train")
        await _edit_policy(story, "cooldown: 2s", "cooldown: 1h")
        await story.watch.state_after(run["run_id"], "training")
        story.screen.begin(f"{stage}.evaluate")
        await story.watch.verdict(run["run_id"], wanted=wanted)
    return str(run["run_id"])


async def _kill_trainer(story: Story) -> None:
    """Kill the child once its first checkpoints are behind it."""
    run = await story.watch.step_of(story.first_run, KILLED_AFTER_STEP)
    story.world.kill_process(run["pid"])
    step = run["progress"]["step"]
    story.screen.news(f"trainer killed (SIGKILL) at step {step}; it resumes from its checkpoint")


async def _edit_policy(story: Story, old: str, new: str) -> None:
    """Change the file as an operator would, and wait until the daemon applied it."""
    await story.watch.policy(replace_in_policy(story.world.policy_path, old, new))


def replace_in_policy(path: Path, old: str, new: str) -> str:
    """Change a policy file and return its new text.

    Raises:
        DemoError: `old` is not in it.
    """
    text = path.read_text("utf-8")
    if old not in text:
        raise DemoError(str(path), f"{old!r} is not in it", "Restore policies/support.yaml")
    edited = text.replace(old, new)
    path.write_text(edited, "utf-8")
    return edited


@asynccontextmanager
async def _keep_asking(
    story: Story, queues: tuple[str, ...], *, slow: bool = False
) -> AsyncIterator[None]:
    """Customers go on asking while something else happens; few of them while a model trains.

    At its end what was begun is answered; where the block fails it is cut off.
    """
    stop = asyncio.Event()
    clients, pause_s, at_most = (1, _SLOW_PAUSE_S, _SLOW_REQUESTS) if slow else (8, 0, None)
    asking = story.desk.ask_until(
        stop, queues=queues, clients=clients, pause_s=pause_s, at_most=at_most
    )
    task = asyncio.create_task(asking)
    try:
        yield
        stop.set()
        answered = lambda: {"answers": story.desk.answered}  # noqa: E731 - one line, used once
        await story.waits.end_of("waiting for the last answers", task, answered)
    finally:
        task.cancel()


class _Asked:
    """A round of requests: how many are answered, shown with the time they still take."""

    def __init__(self, story: Story, total: int) -> None:
        self._story = story
        self._total = total
        self._began = time.monotonic()
        self._before = story.desk.answered

    @property
    def done(self) -> int:
        return self._story.desk.answered - self._before

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began

    def seen(self) -> Mapping[str, object]:
        """Facts that move while a wait lasts."""
        left_s = self.spent_s / self.done * max(0, self._total - self.done) if self.done else None
        self._story.screen.now(f"{self.done} of {self._total} answers", left_s=left_s)
        return {"answers": self.done}
