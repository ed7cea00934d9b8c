"""Watches the daemon from outside: runs, rollouts, policies, events. Waits for them, shows them."""

import re
import time
from typing import Any

from adaptd.daemon.demo.screen import Screen
from adaptd.daemon.demo.waits import Waits
from adaptd.daemon.demo.world import ALIAS, DemoError, DemoWorld
from adaptd.daemon.domain.patience import Patience, Peak
from adaptd.daemon.domain.processes import group_members, work_of
from adaptd.daemon.domain.states import RunState
from adaptd.daemon.policy.load import load_policy
from adaptd.serving.host.launch import count_distinct_lines, problem_of, stage_of
from adaptd.serving.host.server_process import work_done

_TIMES = re.compile(r"\d+:\d\d:\d\d")  # a cooldown that runs down is no movement
_STARTS = 2  # of vLLM; the first may have lost its port or its memory to another process

Row = dict[str, Any]


class Watcher:
    """Every wait names what it waits for and looks at values that only that work changes."""

    def __init__(self, world: DemoWorld, screen: Screen, waits: Waits) -> None:
        self._world = world
        self._screen = screen
        self._waits = waits

    async def ready(self, *, expected_s: float) -> None:
        """Wait until daemon, vLLM and gateway are ready, which should take about `expected_s`."""
        began = time.monotonic()

        async def found(patience: Patience) -> bool | None:
            status = await self._read_status()
            if status.get("ready"):
                return True
            self._look_at_start(patience, status)
            spent_s = time.monotonic() - began
            text = f"{self._start_stage(status)}, {spent_s:.0f} s, usually about {expected_s:.0f} s"
            self._screen.now(text, left_s=max(0.0, expected_s - spent_s))
            return None

        await self._waits.until("waiting for daemon and vLLM to get ready", found)

    def _look_at_start(self, patience: Patience, status: Row) -> None:
        record, still_s = self._world.engine(), patience.still_s
        pid = self._world.daemon_pid
        daemon = work_of([pid]) if pid is not None and not status else None
        engine = work_done(record) if record is not None else None
        patience.saw(
            work_of_daemon=daemon and daemon.units(still_s),
            work_of_vllm=engine and engine.units(still_s),
            lines_of_vllm=count_distinct_lines(self._engine_log()),
            parts=sorted(part["part"] for part in status.get("not_ready", [])) or None,
        )
        older = sorted(self._world.engine_log.parent.glob("vllm.log.*"))
        if len(older) >= _STARTS:
            problem = problem_of(older[0].read_text(errors="replace"))
            raise DemoError("vLLM", f"it ended while starting: {problem}", f"See {older[0]}")

    def _start_stage(self, status: Row) -> str:
        """The stage of the start, in our own words."""
        if not status:
            return "the daemon starts"
        if not any(part["part"] == "vllm" for part in status["not_ready"]):
            return "the gateway gets its routes"
        return f"vLLM: {stage_of(self._engine_log())}"

    def _engine_log(self) -> str:
        path = self._world.engine_log
        return path.read_text(errors="replace") if path.exists() else ""

    async def run_after(self, before: str | None) -> Row:
        """Wait for the run that follows `before` (None: any) to train."""

        async def found(patience: Patience) -> Row | None:
            newest = await self.newest_run()
            if not newest or newest["run_id"] == before:
                waits = await self._trigger_words()
                patience.saw(waits=waits)
                self._screen.now(waits or "the daemon has not looked yet")
                return None
            if newest["state"] == "failed":
                raise DemoError(
                    newest["run_id"], f"it failed ({newest['reason']})", self._see_daemon()
                )
            patience.saw(run=newest["run_id"], state=newest["state"])
            self._screen.now(f"run {newest['run_id']}: {newest['state']}")
            return newest if newest["state"] == "training" else None

        return await self._waits.until("waiting for enough feedback to train on", found)

    async def step_of(self, run_id: str, step: int) -> Row:
        """Wait until a run in training has done so many steps."""

        async def found(patience: Patience) -> Row | None:
            if (run := await self._seen_run(run_id, patience)) is None:
                return None
            if run["state"] != "training":
                problem = f"it is {run['state']}: too late to kill"
                raise DemoError(run_id, problem, self._see_daemon())
            far = (run["progress"] or {}).get("step", 0) >= step
            return run if far and run["pid"] else None

        return await self._waits.until(f"waiting for training step {step}", found)

    async def state_after(self, run_id: str, left: str) -> str:
        """Wait until a run has left a state, and say the one it is in."""

        async def found(patience: Patience) -> str | None:
            run = await self._seen_run(run_id, patience)
            return None if run is None or run["state"] == left else run["state"]

        return await self._waits.until(f"waiting for the end of {left}", found)

    async def verdict(self, run_id: str, *, wanted: str) -> Row:
        """Wait for a run's end.

        Raises:
            DemoError: it ended otherwise than wanted.
        """

        async def found(patience: Patience) -> Row | None:
            run = await self._seen_run(run_id, patience)
            return run if run is not None and RunState(run["state"]).is_final else None

        run = await self._waits.until("waiting for the verdict", found)
        if run["state"] != wanted:
            problem = f"the run ended as {run['state']} ({run['reason']}), not {wanted}"
            raise DemoError(run_id, problem, self._see_daemon())
        return run

    async def rollout(self, adapter: str, *, state: str) -> Row:
        """Wait until the rollout of a version is in a state.

        Raises:
            DemoError: it ended in another one.
        """
        better, worse = Peak(), Peak()
        units = self._units_wanted()

        async def found(patience: Patience) -> Row | None:
            if (row := await self._newest_rollout(adapter)) is None:
                return None
            guard = (row["evidence"] or {}).get("guard") or {}
            wanted = units[row["step"] - 1] if 0 < row["step"] <= len(units) else 0
            patience.saw(
                state=row["state"],
                step=row["step"],
                paused=row["paused"] or "no",
                units=min(guard.get("units_this_step", 0), wanted),
                evidence_for=better.of(guard.get("promotion_e")),
                evidence_against=worse.of(guard.get("rollback_e")),
            )
            waits = (row["evidence"] or {}).get("waits") or ""
            self._screen.now(f"{adapter} {row['state']} {row['step']}: {waits}".rstrip(": "))
            if row["state"] == state:
                return row
            if row["state"] in {"rolled_back", "aborted", "live"}:
                problem = f"the rollout ended as {row['state']}, not {state}"
                raise DemoError(row["rollout_id"], problem, self._see_daemon())
            return None

        return await self._waits.until(f"waiting for {adapter} to be {state}", found)

    async def policy(self, yaml: str) -> None:
        """Wait until the daemon has applied a policy file."""

        async def found(_: Patience) -> bool | None:
            rows = await self._world.get("/v1/policies") or []
            return True if any(row.get("yaml") == yaml for row in rows) else None

        await self._waits.until("waiting for the policy edit to apply", found)

    async def stored(self, count: int) -> None:
        """Wait until so many events are in the store."""

        async def found(patience: Patience) -> bool | None:
            counts = (await self._read_status()).get("events")
            if counts is None:
                return None
            stored = min(count, counts["interactions"] + counts["feedback"])
            patience.saw(events_stored=stored)
            self._screen.now(f"{stored} of {count} events stored")
            return True if stored == count else None

        await self._waits.until("waiting for the last events", found)

    async def newest_run(self) -> Row:
        """The run that was created last; empty where there is none."""
        runs = await self._world.get(f"/v1/runs?model={ALIAS}") or []
        return max(runs, key=lambda run: run["created_at"], default={})

    async def adapter_of(self, run_id: str) -> str:
        """The version that a run made."""

        async def found(_: Patience) -> str | None:
            run = await self._world.get(f"/v1/runs/{run_id}")
            return run and run["adapter"]

        return await self._waits.until("asking the daemon for a run", found)

    async def _seen_run(self, run_id: str, patience: Patience) -> Row | None:
        """A run as it is now, shown; None while the daemon is away."""
        run = await self._world.get(f"/v1/runs/{run_id}")
        if run is None:
            return None
        done = run["progress"] or {}
        trainer = None
        if run["state"] == "training" and run["pid"]:
            trainer = work_of(group_members(run["pid"]))
        patience.saw(
            state=run["state"],
            phase=done.get("phase") or done.get("stage"),
            step=done.get("step"),
            work_of_trainer=trainer and trainer.units(patience.still_s),
        )
        self._screen.now(about_run(run), left_s=done.get("eta_s"))
        return run

    async def _newest_rollout(self, adapter: str) -> Row | None:
        rollouts = await self._world.get(f"/v1/rollouts?model={ALIAS}") or []
        mine = [row for row in rollouts if row["candidate"] == adapter]
        return max(mine, key=lambda row: row["created_at"], default=None)

    def _units_wanted(self) -> list[int]:
        path = self._world.policy_path
        policy = load_policy(path, folder=path.parent).policy
        return [step.units for step in policy.rollout.steps] if policy is not None else []

    async def _trigger_words(self) -> str | None:
        """The reason that the daemon does not train yet, without the parts that only the clock
        changes.
        """
        models = (await self._read_status()).get("models", [])
        reason = next((row["trigger"] for row in models if row["model"] == ALIAS), None)
        return reason and _TIMES.sub("some time", reason)

    async def _read_status(self) -> Row:
        """The daemon's own account; empty while it is away."""
        if not (self._world.home / "control.token").exists():
            return {}
        return await self._world.get("/v1/status") or {}

    def _see_daemon(self) -> str:
        return f"See {self._world.daemon_log}"


def about_run(run: Row) -> str:
    """A run in a few words: state, step, loss, speed."""
    done = run["progress"] or {}
    if waits := done.get("waits_for"):
        return f"{run['state']}, waits: {waits}"
    if run["state"] == "training" and done.get("loss") is not None:
        speed = f"{done['tokens_per_s'] or 0:.0f} tokens/s, {done['eta_s'] or 0:.0f} s left"
        return f"training step {done['step']} of {done['total']}, loss {done['loss']:.2f}, {speed}"
    if run["state"] == "training" and done.get("phase"):
        return f"training: {done['phase']}"
    if done.get("stage") and "step" in done:
        return f"{done['stage']} {done['step']} of {done['total']} items"
    return str(run["state"])
