"""What happens in the demo, stage by stage, on real parts."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from daemon.demo.customers import POISONER, Desk, Tally
from daemon.demo.screen import Screen, Stage
from daemon.demo.texts import FIRST_QUEUES, NEW_QUEUES
from daemon.demo.world import ALIAS, DemoError, World

T = TypeVar("T")

REQUESTS = 600
POISONED_REQUESTS = 320  # with 220 the gate saw too small a loss to reject it
NEW_QUEUE_REQUESTS = 270
MEASURED = 120
KILLED_AFTER_STEP = 14
UNSEEN_MEASURED = 40
_CAPPED = "per_user: 80, per_user_share: 50%"
_UNCAPPED = "per_user: 100000, per_user_share: 100%"
_SLOW_PAUSE_S = 4.0  # between two requests while a model trains: both need the same two cores

STAGES = (
    Stage("setup", "set up: base model, broker, daemon, vLLM", 110),
    Stage("before", "measure the base model on fresh messages", 15),
    Stage("ask", "customers ask, agents correct; the daemon is killed once", 100),
    Stage("train", "train the first adapter; the trainer is killed once", 150),
    Stage("canary", "canary of the first adapter, then live", 130),
    Stage("poison", "poisoned corrections: trained, then stopped by the gate", 210),
    Stage("forced", "an operator forces the bad adapter; the guard takes it back", 110),
    Stage("again", "two new queues open: corrections, training, evaluation", 230),
    Stage("after", "measure again, count every event", 40),
)


@dataclass
class Story:
    """Facts gathered on the way, for the report."""

    world: World
    screen: Screen
    desk: Desk
    before: Tally = field(default_factory=Tally)
    after: Tally = field(default_factory=Tally)
    unseen: Tally = field(default_factory=Tally)
    first_live_s: float = 0.0
    first_run: str = ""
    poisoned_run: str = ""
    forced_rollout: str = ""
    loop_started: float = 0.0


async def play(story: Story) -> None:
    """The whole loop, once.

    Raises:
        DemoError: a stage did not reach its end within its limit, or ended otherwise.
    """
    story.loop_started = time.monotonic()
    await _measure_before(story)
    await _ask_and_correct(story)
    await _first_adapter(story)
    await _poisoned(story)
    await _forced(story)
    await _again(story)
    await _measure_after(story)


async def _measure_before(story: Story) -> None:
    story.screen.begin("before")
    story.before = await story.desk.measure(MEASURED)
    story.screen.news(f"base model: {story.before.right} of {MEASURED} right")


async def _ask_and_correct(story: Story) -> None:
    story.screen.begin("ask")
    asking = asyncio.create_task(story.desk.ask_many(REQUESTS, queues=FIRST_QUEUES))
    async with _told(story, lambda: f"{len(story.desk.tally.interactions)} answers"):
        await _until(story, lambda: _asked(story, REQUESTS // 3), 300, "waiting for answers")
        story.world.kill_daemon()
        story.screen.news("daemon killed (SIGKILL) while events arrive; customers notice nothing")
        await asyncio.sleep(3)
        story.world.start_daemon()
        await asking
    story.screen.news(f"{REQUESTS} requests answered, {story.desk.tally.right} right")


async def _first_adapter(story: Story) -> None:
    story.screen.begin("train")
    async with _traffic(story, FIRST_QUEUES, slow=True):
        run = await _wait_run(story, after=None, states={"training"}, limit_s=120)
        story.first_run = run["run_id"]
        story.screen.news(f"run {story.first_run} began: {run['trigger'].get('reason', '')}")
        await _kill_trainer(story)
        await _wait_verdict(story, story.first_run, wanted="accepted", limit_s=420)
    story.screen.begin("canary")
    async with _traffic(story, FIRST_QUEUES):
        await _wait_rollout(
            story, adapter=await _adapter_of(story, story.first_run), state="live", limit_s=420
        )
    story.first_live_s = time.monotonic() - story.loop_started
    story.screen.news(f"first adapter live after {story.first_live_s:.0f} s")


async def _poisoned(story: Story) -> None:
    story.screen.begin("poison")
    await _edit_policy(story, _CAPPED, _UNCAPPED)
    story.screen.news(f"caps lifted by a policy edit; {POISONER} corrects every answer alike")
    await _ask_all(story, POISONED_REQUESTS, FIRST_QUEUES, poison="refund")
    story.poisoned_run = await _train_now(story, FIRST_QUEUES, wanted="rejected")
    story.screen.news("the poisoned candidate was rejected before any customer saw it")


async def _forced(story: Story) -> None:
    story.screen.begin("forced")
    bad = await _adapter_of(story, story.poisoned_run)
    story.world.command("rollout", "start", bad, "--override", "demo: an operator in a hurry")
    story.screen.news(f"operator forces {bad} past the gate")
    async with _traffic(story, FIRST_QUEUES):
        rollout = await _wait_rollout(story, adapter=bad, state="rolled_back", limit_s=360)
    story.forced_rollout = rollout["rollout_id"]
    story.screen.news("the guard took it back by itself")


async def _again(story: Story) -> None:
    story.screen.begin("again")
    cards = "tags['product'] = 'cards'"
    await _edit_policy(story, _UNCAPPED, _CAPPED)
    left_out = f"{cards} AND correction_user IS DISTINCT FROM '{POISONER}'"
    await _edit_policy(story, cards, left_out)
    story.screen.news(f"policy edited: caps back, {POISONER} left out; two new queues open")
    queues = NEW_QUEUES * 3 + FIRST_QUEUES
    await _ask_all(story, NEW_QUEUE_REQUESTS, queues)
    run_id = await _train_now(story, queues, wanted="accepted")
    story.screen.news("a good candidate is accepted again")
    async with _traffic(story, queues):
        adapter = await _adapter_of(story, run_id)
        await _wait_rollout(story, adapter=adapter, state="live", limit_s=300)
    story.screen.news("and live")


async def _ask_all(
    story: Story, count: int, queues: tuple[str, ...], *, poison: str | None = None
) -> None:
    """Ask, and wait for the last feedback on it."""
    async with _told(story, lambda: f"{len(story.desk.tally.interactions)} answers"):
        await story.desk.ask_many(count, queues=queues, poison=poison)
        await story.desk.settle()


async def _train_now(story: Story, queues: tuple[str, ...], *, wanted: str) -> str:
    """Lift the cooldown for one run and see it to its verdict; returns the run."""
    last = await _newest_run(story)
    await _edit_policy(story, "cooldown: 1h", "cooldown: 2s")
    async with _traffic(story, queues, slow=True):
        run = await _wait_run(story, after=last["run_id"], states={"training"}, limit_s=150)
        await _edit_policy(story, "cooldown: 2s", "cooldown: 1h")
        await _wait_verdict(story, run["run_id"], wanted=wanted, limit_s=420)
    return str(run["run_id"])


async def _measure_after(story: Story) -> None:
    story.screen.begin("after")
    story.after = await story.desk.measure(MEASURED)
    story.unseen = await story.desk.measure(UNSEEN_MEASURED, reserved=True)
    story.screen.news(f"now: {story.after.right} of {MEASURED} right")
    await story.desk.settle()
    await _drained(story)


async def _asked(story: Story, count: int) -> bool | None:
    return True if len(story.desk.tally.interactions) >= count else None


async def _kill_trainer(story: Story) -> None:
    """Kill the child once its first checkpoints are behind it."""

    async def found() -> dict[str, Any] | None:
        run = await _run(story, story.first_run)
        _tell_progress(story, run)
        if run["state"] != "training":
            raise DemoError(
                run["run_id"], f"it is {run['state']}: too late to kill", "See daemon.log"
            )
        far = (run["progress"] or {}).get("step", 0) >= KILLED_AFTER_STEP
        return run if far and run["pid"] else None

    run = await _until(story, found, 300, "waiting for training steps")
    story.world.kill_process(run["pid"])
    step = run["progress"]["step"]
    story.screen.news(f"trainer killed (SIGKILL) at step {step}; it resumes from its checkpoint")


async def _wait_run(
    story: Story, *, after: str | None, states: set[str], limit_s: float
) -> dict[str, Any]:
    """The run that follows `after` (None: any), once it is in one of the states."""

    async def found() -> dict[str, Any] | None:
        newest = await _newest_run(story)
        if not newest or newest["run_id"] == after:
            return None
        if newest["state"] == "failed":
            raise DemoError(newest["run_id"], f"it failed ({newest['reason']})", "See daemon.log")
        return newest if newest["state"] in states else None

    return await _until(story, found, limit_s, "waiting for enough feedback to train on")


async def _wait_verdict(story: Story, run_id: str, *, wanted: str, limit_s: float) -> None:
    final = {"accepted", "rejected", "inconclusive", "failed", "cancelled"}

    async def found() -> dict[str, Any] | None:
        run = await _run(story, run_id)
        _tell_progress(story, run)
        return run if run["state"] in final else None

    run = await _until(story, found, limit_s, "training")
    if run["state"] != wanted:
        raise DemoError(
            run_id,
            f"the run ended as {run['state']} ({run['reason']}), not {wanted}",
            "See daemon.log",
        )


async def _wait_rollout(
    story: Story, *, adapter: str, state: str, limit_s: float
) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        rollouts = await story.world.get(f"/v1/rollouts?model={ALIAS}") or []
        mine = [row for row in rollouts if row["candidate"] == adapter]
        if not mine:
            return None
        row = max(mine, key=lambda row: row["created_at"])
        story.screen.now(_about_rollout(row))
        if row["state"] != state and row["state"] in {"rolled_back", "aborted", "live"}:
            raise DemoError(
                row["rollout_id"],
                f"the rollout ended as {row['state']}, not {state}",
                "See daemon.log",
            )
        return row if row["state"] == state else None

    return await _until(story, found, limit_s, "waiting for the rollout")


def _about_rollout(row: dict[str, Any]) -> str:
    return f"{row['candidate']} {row['state']} {row['step']}"


def _tell_progress(story: Story, run: dict[str, Any]) -> None:
    done = run.get("progress") or {}
    text = str(run["state"])
    if run["state"] == "training" and done.get("loss") is not None:
        text += f" step {done['step']} of {done['total']}, loss {done['loss']:.2f}"
        text += f", {done['tokens_per_s'] or 0:.0f} tokens/s, {done['eta_s'] or 0:.0f} s left"
    story.screen.now(text)


async def _run(story: Story, run_id: str) -> dict[str, Any]:
    return await _until(
        story, lambda: story.world.get(f"/v1/runs/{run_id}"), 30, "asking the daemon"
    )


async def _adapter_of(story: Story, run_id: str) -> str:
    return str((await _run(story, run_id))["adapter"])


async def _newest_run(story: Story) -> dict[str, Any]:
    runs = await story.world.get(f"/v1/runs?model={ALIAS}") or []
    return max(runs, key=lambda run: run["created_at"], default={})


async def _edit_policy(story: Story, old: str, new: str) -> None:
    """Change the file as an operator would, and wait until the daemon applied it."""
    path = story.world.policy_path
    text = path.read_text()
    if old not in text:
        raise DemoError(str(path), f"{old!r} is not in it", "Restore policies/support.yaml")
    edited = text.replace(old, new)
    path.write_text(edited)

    async def found() -> bool | None:
        rows = await story.world.get("/v1/policies") or []
        return True if any(row.get("yaml") == edited for row in rows) else None

    await _until(story, found, 30, "waiting for the policy edit to apply")


async def _drained(story: Story) -> None:
    """Wait until everything accepted is in the store."""
    sent = len(set(story.desk.tally.interactions)) + len(set(story.desk.tally.feedback))

    async def found() -> bool | None:
        status = await story.world.get("/v1/status") or {}
        counts = status.get("events", {})
        return True if counts.get("interactions", 0) + counts.get("feedback", 0) >= sent else None

    await _until(story, found, 60, "waiting for the last events")


async def _until(
    story: Story, found: Callable[[], Awaitable[T | None]], limit_s: float, what: str
) -> T:
    """Ask until there is an answer.

    Raises:
        DemoError: none within the limit, or the daemon is gone.
    """
    deadline = time.monotonic() + limit_s
    while (result := await found()) is None:
        if time.monotonic() > deadline:
            raise DemoError(
                "demo", f"{what}: not within {limit_s:.0f} s", "See daemon.log in var/demo"
            )
        if story.world.daemon_died():
            raise DemoError("daemon", "it ended by itself", "See daemon.log in var/demo")
        await asyncio.sleep(0.5)
    return result


@asynccontextmanager
async def _traffic(
    story: Story, queues: tuple[str, ...], *, slow: bool = False
) -> AsyncIterator[None]:
    """Customers go on asking while something else happens; few of them while a model trains."""
    stop = asyncio.Event()
    clients, pause_s = (1, _SLOW_PAUSE_S) if slow else (8, 0)
    asking = story.desk.ask_until(stop, queues=queues, clients=clients, pause_s=pause_s)
    task = asyncio.create_task(asking)
    try:
        yield
    finally:
        stop.set()
        await task


@asynccontextmanager
async def _told(story: Story, text: Callable[[], str]) -> AsyncIterator[None]:
    """Show a changing line while the block runs."""

    async def loop() -> None:
        while True:
            story.screen.now(text())
            await asyncio.sleep(0.5)

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
