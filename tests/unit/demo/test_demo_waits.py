"""The demo's waits over a daemon that answers from a script: what counts as movement.

Each question takes ten seconds of the waits' clock, and a minute without movement ends them.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from adaptd.daemon.demo.forecast import Forecast
from adaptd.daemon.demo.screen import Screen
from adaptd.daemon.demo.waits import Waits
from adaptd.daemon.demo.watcher import Watcher
from adaptd.daemon.demo.world import DemoError, DemoWorld
from tests.support.broker import ROOT

Document = dict[str, Any] | list[dict[str, Any]]
STILL_S, QUESTION_S = 60.0, 10.0
Script = Callable[[int], Document]


class ScriptedWorld:
    """Answers the n-th question for a path with what `script` says for it."""

    def __init__(self, home: Path, **script: Script) -> None:
        self.home = home
        self.daemon_log = home / "daemon.log"
        self.policy_path = ROOT / "policies" / "support.yaml"
        self.dead = False
        self.silent = 0  # so many questions get no answer
        self.questions = 0
        self.look_s = 5.0
        self._script = script
        self._asked: dict[str, int] = {}
        (home / "control.token").touch()

    async def get(self, path: str) -> Document:
        self.questions += 1
        if self.silent:
            self.silent -= 1
            await asyncio.Event().wait()
        name = path.partition("?")[0].split("/")[2]
        self._asked[name] = self._asked.get(name, -1) + 1
        return self._script[name](self._asked[name])

    def daemon_died(self) -> bool:
        return self.dead

    def waits(self) -> Waits:
        clock = lambda: QUESTION_S * self.questions  # noqa: E731
        return Waits(cast("DemoWorld", self), STILL_S, poll_s=0, look_s=self.look_s, clock=clock)


def watcher(world: ScriptedWorld) -> Watcher:
    return Watcher(cast("DemoWorld", world), Screen(Forecast(), started=0), world.waits())


def rollout(state: str = "step", **guard: float) -> list[dict[str, Any]]:
    evidence = {"guard": guard, "waits": "inconclusive"}
    row = {"candidate": "a", "rollout_id": "r", "state": state, "step": 1, "paused": None}
    return [row | {"evidence": evidence, "created_at": "2026"}]


def run(state: str, **progress: object) -> dict[str, Any]:
    found = {"loss": 1.0, "tokens_per_s": 1.0, "eta_s": 1.0, "total": 36} | progress
    return {"run_id": "run-1", "state": state, "reason": "", "pid": None, "progress": found}


async def test_a_rollout_whose_evidence_only_wavers_ends_the_wait(tmp_path: Path) -> None:
    """Units of background traffic beyond what the step needs, and e-values up and down."""
    world = ScriptedWorld(
        tmp_path,
        rollouts=lambda n: rollout(units_this_step=500 + n, promotion_e=1 + n % 3, rollback_e=0.5),
    )
    with pytest.raises(DemoError, match=r"waiting for a to be live: nothing moved for 70 s"):
        await watcher(world).rollout("a", state="live")


async def test_a_rollout_that_gathers_units_and_evidence_may_take_any_time(tmp_path: Path) -> None:
    def rows(n: int) -> list[dict[str, Any]]:
        if n == 800:
            return rollout("live")
        return rollout(units_this_step=n // 4, promotion_e=1.2 ** max(0, n // 4 - 90))

    world = ScriptedWorld(tmp_path, rollouts=rows)
    found = await watcher(world).rollout("a", state="live")
    assert found["state"] == "live"


async def test_a_rollout_that_ends_otherwise_is_told_at_once(tmp_path: Path) -> None:
    world = ScriptedWorld(tmp_path, rollouts=lambda _: rollout("aborted"))
    with pytest.raises(DemoError, match="ended as aborted, not live"):
        await watcher(world).rollout("a", state="live")


async def test_a_training_that_steps_may_take_any_time(tmp_path: Path) -> None:
    def document(n: int) -> Document:
        state = "training" if n < 200 else "accepted"
        return run(state, step=n // 6, phase="training")

    world = ScriptedWorld(tmp_path, runs=document)
    assert (await watcher(world).verdict("run-1", wanted="accepted"))["state"] == "accepted"


async def test_the_time_that_a_training_says_is_left_does_not_move_it(tmp_path: Path) -> None:
    world = ScriptedWorld(tmp_path, runs=lambda n: run("training", step=3, eta_s=100.0 - n))
    with pytest.raises(DemoError, match="waiting for the verdict: nothing moved for 70 s"):
        await watcher(world).verdict("run-1", wanted="accepted")


def trigger(reason: Callable[[int], str]) -> Script:
    return lambda n: {"models": [{"model": "support", "trigger": reason(n)}]}


async def test_a_cooldown_that_runs_down_does_not_move(tmp_path: Path) -> None:
    status = trigger(lambda n: f"cooldown, 0:{59 - n // 60}:{59 - n % 60:02} left")
    world = ScriptedWorld(tmp_path, runs=lambda _: [], status=status)
    with pytest.raises(DemoError, match="waits cooldown, some time left"):
        await watcher(world).run_after(None)


async def test_examples_that_gather_move(tmp_path: Path) -> None:
    started = [run("training") | {"created_at": "2026"}]
    status = trigger(lambda n: f"{n // 2} of 150 new examples")
    world = ScriptedWorld(tmp_path, runs=lambda n: started if n > 100 else [], status=status)
    assert (await watcher(world).run_after(None))["run_id"] == "run-1"


async def test_the_last_events_are_counted_up_to_those_that_were_sent(tmp_path: Path) -> None:
    def counts(n: int) -> Document:
        return {"events": {"interactions": n, "feedback": n}}

    await watcher(ScriptedWorld(tmp_path, status=counts)).stored(20)
    lost = ScriptedWorld(tmp_path, status=lambda _: counts(9))
    with pytest.raises(DemoError, match=r"waiting for the last events: .* last events stored 18"):
        await watcher(lost).stored(20)


async def test_a_daemon_that_has_gone_ends_every_wait(tmp_path: Path) -> None:
    world = ScriptedWorld(tmp_path)
    world.dead = True
    with pytest.raises(DemoError, match="it ended by itself"):
        await world.waits().end_of("waiting for answers", asyncio.sleep(5), dict)


async def test_a_daemon_that_accepts_and_never_answers_ends_the_wait(tmp_path: Path) -> None:
    world = ScriptedWorld(tmp_path)
    world.silent, world.look_s = 1000, 0.01
    with pytest.raises(DemoError, match=r"feedback to train on: nothing moved for 70 s"):
        await watcher(world).run_after(None)


async def test_a_look_that_is_cut_off_does_not_end_a_wait_in_which_others_see_something(
    tmp_path: Path,
) -> None:
    def document(n: int) -> Document:
        world.silent = 1
        return run("training" if n < 60 else "accepted", step=n)

    world = ScriptedWorld(tmp_path, runs=document)
    world.look_s = 0.01
    assert (await watcher(world).verdict("run-1", wanted="accepted"))["state"] == "accepted"


async def test_work_of_our_own_is_waited_for_as_long_as_it_counts(tmp_path: Path) -> None:
    world, end = ScriptedWorld(tmp_path), asyncio.Event()

    def seen() -> Mapping[str, object]:
        world.questions += 1
        if world.questions == 100:
            end.set()
        return {"answers": min(world.questions // 2, 60)}

    await world.waits().end_of("waiting for answers", end.wait(), seen)
    end.clear()
    with pytest.raises(DemoError, match=r"waiting for answers: nothing moved .* last answers 60"):
        await world.waits().end_of("waiting for answers", end.wait(), seen)
