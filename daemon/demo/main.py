"""`adaptd demo`: set up, play the story, end everything, report."""

import asyncio
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from adaptd.daemon.demo import report
from adaptd.daemon.demo.customers import Desk
from adaptd.daemon.demo.forecast import STAGES, Forecast, slowness
from adaptd.daemon.demo.jars import POM
from adaptd.daemon.demo.screen import Screen, say, shown
from adaptd.daemon.demo.stopping import StopSignals
from adaptd.daemon.demo.story import MEASURED, REQUESTS, UNSEEN_MEASURED, Story, play
from adaptd.daemon.demo.waits import STILL_S, Waits
from adaptd.daemon.demo.watcher import Watcher
from adaptd.daemon.demo.world import BASE, DemoError, DemoWorld
from adaptd.daemon.domain.calibration import Calibration
from adaptd.daemon.domain.machine import memory_available_bytes, memory_limit_bytes
from adaptd.daemon.domain.memory import DEMO_WEIGHTS_BYTES, memory_problem, needed_bytes
from adaptd.daemon.settings import Settings, load_settings
from adaptd.daemon.training import calibration
from adaptd.daemon.training.calibration import AUTO, Calibrator
from adaptd.daemon.wire.tokens import create_token
from adaptd.serving.host.builds import computes_on_cpu

REPORT = Path("demo-report.json")
_MOST_STILL = 4.0  # a machine that seems slower still was busy when it was measured


@dataclass(frozen=True)
class Pace:
    """This machine's speed and number format, and the consequences for the demo."""

    calibration: Calibration
    dtype: str
    forecast: Forecast
    still_s: float


def run_demo(*, seed: int, home: Path, stop: StopSignals) -> None:
    """Run the whole loop on this machine and write `demo-report.json`.

    Raises:
        DemoError: this is no checkout, memory is short, nothing moves any more, or a figure of the
            report is not what adaptd promises; the message says which and where to look.
        Stopped: a signal came; everything that was started has ended.
    """
    began = time.monotonic()
    # What our parts log is for processes of their own: here is a screen.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = load_settings()
    _refuse_what_cannot_end_well(settings)
    world = DemoWorld(home)
    stop.on_second = world.kill
    try:
        world.make_base(say)
        with shown("measuring how fast this machine is"):
            pace = _measure_pace(settings, home)
        say(_first_line(pace))
        with Screen(pace.forecast, started=began) as screen:
            story = _play_and_end(world, screen, pace, seed=seed, stop=stop)
        figures = _gather_figures(story, pace)
    finally:
        world.kill()  # nothing, unless a signal came just before the clean end
    report.write(figures, REPORT)
    if misses := report.misses(figures):
        remedy = f"See {world.daemon_log}, and please report it"
        raise DemoError(str(REPORT), "; ".join(misses), remedy)


def _refuse_what_cannot_end_well(settings: Settings) -> None:
    if not (POM.exists() and Path("policies").is_dir()):
        remedy = "Clone adaptd, go to its folder and run make demo"
        raise DemoError("demo", "it runs in a checkout of the source only", remedy)
    limit, available = memory_limit_bytes(), memory_available_bytes()
    _refuse_short_memory(settings.upstream.dtype, limit=limit, available=available)


def _refuse_short_memory(dtype: str, *, limit: int, available: int) -> None:
    needed = needed_bytes(DEMO_WEIGHTS_BYTES, dtype)
    if problem := memory_problem(needed, limit=limit, available=available):
        raise DemoError("demo", problem, "End other programs, or take a larger machine")


def _measure_pace(settings: Settings, home: Path) -> Pace:
    """Calibrate as the daemon would: it finds the answer in its home."""
    python = settings.vllm_python or Path(sys.executable)
    path = home / calibration.FILE
    on_cpu = computes_on_cpu(python)
    found = Calibrator(BASE.resolve(), path, python=python, on_cpu=on_cpu).ensure()
    limit, available = memory_limit_bytes(), memory_available_bytes()
    return pace_of(found, settings.upstream.dtype, limit=limit, available=available)


def pace_of(found: Calibration, given: str, *, limit: int, available: int) -> Pace:
    """Say what a calibration means for the demo. `given` is the setting of the number format.

    Raises:
        DemoError: memory is short for the format. For `auto` it was checked for the least of all
            before, as the format was not known.
    """
    dtype = found.dtype if given == AUTO else given
    _refuse_short_memory(dtype, limit=limit, available=available)
    slow = slowness(found, dtype)
    still_s = STILL_S * min(max(1.0, slow), _MOST_STILL)
    return Pace(found, dtype, Forecast(STAGES, slowness=slow), still_s)


def _first_line(pace: Pace) -> str:
    machine, forecast = pace.calibration.machine, pace.forecast
    about, most = round(forecast.whole_s / 60), round(forecast.bound_s / 60)
    where = f"{machine.processor}, {machine.cores} cores, {pace.dtype}"
    return f"adaptd demo: about {about} minutes on this machine ({where}); at most {most}"


def _play_and_end(
    world: DemoWorld, screen: Screen, pace: Pace, *, seed: int, stop: StopSignals
) -> Story:
    """Play the story. However it ends, what was started is ended."""
    try:
        screen.begin("setup.start")
        screen.now("Kafka broker")
        world.start_broker(screen.news)
        return asyncio.run(_run_world(world, screen, pace, seed=seed, stop=stop))
    except asyncio.CancelledError:
        stop.check()
        raise
    finally:
        with stop.noting():
            words = "stopping (a second signal ends it at once)" if stop.number else "ending"
            screen.news(words)
            world.end(in_a_hurry=lambda: stop.number is not None)
        stop.check()


async def _run_world(
    world: DemoWorld, screen: Screen, pace: Pace, *, seed: int, stop: StopSignals
) -> Story:
    task = asyncio.current_task()
    assert task is not None
    bound_s = pace.forecast.bound_s
    with stop.cancelling(task):
        try:
            async with asyncio.timeout(bound_s):
                return await _tell_story(world, screen, pace, seed)
        except TimeoutError as error:
            problem = f"it moves, and is not done after {bound_s / 60:.0f} min"
            remedy = "That is far more than this machine should take: see what else runs on it"
            raise DemoError("demo", problem, remedy) from error


async def _tell_story(world: DemoWorld, screen: Screen, pace: Pace, seed: int) -> Story:
    token, _ = create_token(
        world.home / "tokens.json",
        tenant="helpdesk",
        scopes=("chat", "feedback"),
        sources=("user", "agent"),
    )
    waits = Waits(world, pace.still_s)
    watch = Watcher(world, screen, waits)
    desk = Desk(world.gateway_url, token, seed=seed)
    story = Story(world, screen, desk, waits, watch)
    try:
        world.start_daemon()
        await watch.ready(expected_s=pace.forecast.expected_s("setup.start"))
        began = float(os.environ.get("ADAPTD_DEMO_BEGAN") or 0)
        story.setup_s = time.time() - began if began else screen.spent_s
        screen.news(f"set up in {story.setup_s:.0f} s")
        await play(story)
        screen.end()
    finally:
        await desk.close()
        await world.close()
    return story


def _gather_figures(story: Story, pace: Pace) -> dict[str, Any]:
    desk, world, found = story.desk, story.world, pace.calibration
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
        "setup_s": round(story.setup_s, 1),
        "loop_s": round(story.loop_s, 1),
        "exact_match_before": report.share(story.before, MEASURED),
        "exact_match_after": report.share(story.after, MEASURED),
        "exact_match_unseen_phrasings_after": report.share(story.unseen, UNSEEN_MEASURED),
        "tokens_per_request_before": report.mean(story.before.tokens),
        "tokens_per_request_after": report.mean(story.after.tokens),
        "first_live_s": round(story.first_live_s, 1),
        "kills": world.kills,
        "stages_s": story.screen.stage_times_s(),
        "requests_per_s": round(REQUESTS / story.asking_s, 2),
        "machine": msgspec.to_builtins(found.machine),
        "dtype": pace.dtype,
        "calibration": {
            "gflops": {name: round(speed, 1) for name, speed in found.speeds.items()},
            "took_s": found.took_s,
            "torch": found.torch,
            "reason": found.reason,
        },
    }
