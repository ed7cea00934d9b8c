"""Scores of versions on items, and the verdicts on candidates."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.domain.scores import Score
from adaptd.daemon.domain.states import AdapterState, RunState, Verdict
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.lifecycle.adapters import move_adapter
from adaptd.daemon.store.lifecycle.runs import Run, move_run

_SQL = statements("evaluations")
_BASE = ""  # the base's name in `scores`


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict on one candidate against the live version. A `live` of None is the base.

    `k` is the candidate's number on the holdout version, `alpha` its part of the policy's alpha.
    `report` is the judgement with every criterion and figure.
    """

    evaluation_id: str
    run_id: str | None
    model: str
    candidate: str
    live: str | None
    holdout_version: int
    k: int
    alpha: float
    verdict: Verdict
    report: dict[str, Any]
    policy_version: int
    created_at: datetime


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The next state of a run and, unless it stays a candidate, of its adapter."""

    run_id: str
    run_to: RunState
    adapter: str
    adapter_to: AdapterState | None = None
    reason: str
    evidence: Any = None


class EvaluationStore:
    """Scores and verdicts. Scores are kept for good: live's date from when it was the candidate."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def scores(
        self, adapter: str | None, suite: str, items: Sequence[str]
    ) -> dict[str, Score]:
        """Return the stored scores of `items`, by item. An adapter of None is the base."""
        values = {"adapter": adapter or _BASE, "suite": suite, "items": list(items)}
        found = await self._database.read(lambda c: rows(c, _SQL["scores_of"], **values))
        return {row.pop("item"): msgspec.convert(row, Score) for row in found}

    async def add_scores(
        self, adapter: str | None, suite: str, scores: Mapping[str, Score]
    ) -> None:
        """Store a batch of scores. Safe to repeat; the first score of an item stays."""
        values = {
            "adapter": adapter or _BASE,
            "suite": suite,
            "items": list(scores),
            "exact": [score.exact for score in scores.values()],
            "nll": [score.nll for score in scores.values()],
            "reference_tokens": [score.reference_tokens for score in scores.values()],
        }

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["add_scores"], values)

        if scores:
            await self._database.write(work)

    async def settle(
        self,
        outcome: Outcome,
        evaluation: Evaluation | None = None,
        *,
        actor: str,
        now: datetime,
    ) -> Run:
        """Write the verdict, the run's last state and the adapter's in one transaction.

        A version that an operator took past the gate meanwhile keeps its state.

        Raises:
            RefusedError: the run was cancelled meanwhile.
        """

        def work(cursor: Connection) -> Run:
            if evaluation is not None:
                report = {"report": msgspec.json.encode(evaluation.report).decode()}
                values = msgspec.structs.asdict(evaluation) | report
                cursor.execute(_SQL["add_evaluation"], values)
            why = {"actor": actor, "reason": outcome.reason, "evidence": outcome.evidence}
            # A version that an operator took past the gate meanwhile keeps its state.
            name, to = outcome.adapter, outcome.adapter_to
            if to is not None and rows(cursor, _SQL["is_candidate"], name=name):
                move_adapter(cursor, name, to, **why)
            return move_run(cursor, outcome.run_id, outcome.run_to, now=now, **why)

        return await self._database.write(work)

    async def abandoned(self) -> "list[str]":
        """Return candidates whose run was cancelled or failed: nobody will judge them."""
        found = await self._database.read(lambda c: rows(c, _SQL["abandoned_candidates"]))
        return [row["name"] for row in found]

    async def get(self, evaluation_id: str) -> Evaluation | None:
        found = await self._list_evaluations("get_evaluation", evaluation_id=evaluation_id)
        return found[0] if found else None

    async def list(self, model: str | None = None, limit: int = 50) -> list[Evaluation]:
        """Return evaluations, newest first."""
        return await self._list_evaluations("list_evaluations", model=model, limit=limit)

    async def of_run(self, run_id: str) -> "list[Evaluation]":
        """Return the evaluations of a run, newest first."""
        return await self._list_evaluations("evaluations_of_run", run_id=run_id)

    async def _list_evaluations(self, statement: str, **values: Any) -> "list[Evaluation]":
        found = await self._database.read(lambda c: rows(c, _SQL[statement], **values))
        return [
            msgspec.convert(row | {"report": msgspec.json.decode(row["report"])}, Evaluation)
            for row in found
        ]


def new_evaluation_id() -> str:
    return f"eval-{secrets.token_hex(5)}"
