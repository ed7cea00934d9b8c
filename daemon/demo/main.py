"""`adaptd demo`: set up, play the story, end everything, report."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from daemon.demo import report
from daemon.demo.customers import Desk
from daemon.demo.jars import POM
from daemon.demo.screen import Screen
from daemon.demo.story import MEASURED, STAGES, UNSEEN_MEASURED, Story, play
from daemon.demo.world import DemoError, World
from daemon.domain.tokens import create_token

REPORT = Path("demo-report.json")


def run_demo(*, seed: int, home: Path) -> None:
    """Run the whole loop on this machine and write `demo-report.json`.

    Raises:
        DemoError: this is no checkout, a stage failed, or a figure of the report is not what
            adaptd promises; the message says which and where to look.
    """
    if not (POM.exists() and Path("policies").is_dir()):
        remedy = "Clone adaptd, go to its folder and run make demo"
        raise DemoError("demo", "it runs in a checkout of the source only", remedy)
    asyncio.run(_run(seed, home))


async def _run(seed: int, home: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does it: everything that was started is ended.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = float(os.environ.get("ADAPTD_DEMO_BEGAN") or time.time())
    with Screen(STAGES) as screen:
        async with World(home) as world:
            screen.begin("setup")
            story = await _set_up(world, screen, seed)
            setup_s = time.time() - began
            screen.news(f"set up in {setup_s:.0f} s")
            try:
                await play(story)
            finally:
                await story.desk.close()
            await world.stop_daemon()
            loop_s = time.monotonic() - story.loop_started
            figures = await asyncio.to_thread(_figures, story)
    full = {"setup_s": round(setup_s, 1), "loop_s": round(loop_s, 1)} | figures
    report.write(full, REPORT)
    if misses := report.misses(full):
        raise DemoError(
            str(REPORT), "; ".join(misses), f"See {home / 'daemon.log'}, and please report it"
        )


async def _set_up(world: World, screen: Screen, seed: int) -> Story:
    world.prepare(
        screen.now, screen.news
    )  # blocks: nothing else runs yet, and the broker ends with this thread
    token, _ = create_token(
        world.home / "tokens.json",
        tenant="helpdesk",
        scopes=("chat", "feedback"),
        sources=("user", "agent"),
    )
    world.start_daemon()
    deadline = time.monotonic() + 300
    while not await _ready(world):
        if world.daemon_died() or time.monotonic() > deadline:
            raise DemoError(
                "set-up", "daemon and vLLM did not get ready", "See daemon.log in var/demo"
            )
        screen.now(f"vLLM starts: {world.engine_log_tail()}")
        await asyncio.sleep(1)
    return Story(world, screen, Desk(world.gateway_url, token, seed=seed))


async def _ready(world: World) -> bool:
    if not (world.home / "control.token").exists():
        return False
    status = await world.get("/v1/status")
    return bool(status and status.get("ready"))


def _figures(story: Story) -> dict[str, Any]:
    desk, world = story.desk, story.world
    sent = report.Sent(
        interactions=set(desk.tally.interactions),
        feedback=set(desk.tally.feedback),
        failed=len(desk.tally.failed),
        requests=len(desk.tally.interactions) + len(desk.tally.failed),
    )
    stored = report.from_store(
        world.home / "store.duckdb",
        sent,
        poisoned_run=story.poisoned_run,
        forced=story.forced_rollout,
    )
    return stored | {
        "exact_match_before": report.share(story.before, MEASURED),
        "exact_match_after": report.share(story.after, MEASURED),
        "exact_match_unseen_phrasings_after": report.share(story.unseen, UNSEEN_MEASURED),
        "tokens_per_request_before": report.mean(story.before.tokens),
        "tokens_per_request_after": report.mean(story.after.tokens),
        "first_live_s": round(story.first_live_s, 1),
        "kills": world.kills,
    }
