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
    """One verdict on one candidate against the version that was live. A `live` of None is the base.

    `k` and `alpha` are those of the holdout version: the candidate's number on it, and its part of
    the policy's alpha. `report` is the judgement with every criterion and figure.
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
    """What becomes of a run and, unless it stays a candidate, of its adapter."""

    run_id: str
    run_to: RunState
    adapter: str
    adapter_to: AdapterState | None = None
    reason: str
    evidence: Any = None


class EvaluationStore:
    """Scores are kept for good: live's were measured when it was the candidate."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def scores(
        self, adapter: str | None, suite: str, items: Sequence[str]
    ) -> dict[str, Score]:
        """What is stored of `items`, by item. An adapter of None is the base."""
        values = {"adapter": adapter or _BASE, "suite": suite, "items": list(items)}
        found = await self._database.read(lambda c: rows(c, _SQL["scores_of"], **values))
        return {row.pop("item"): msgspec.convert(row, Score) for row in found}

    async def add_scores(
        self, adapter: str | None, suite: str, scores: Mapping[str, Score]
    ) -> None:
        """Keep a batch of scores. Safe to repeat; the first score of an item stays."""
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
                cursor.execute(_SQL["add_evaluation"], _values(evaluation))
            return _settle(cursor, outcome, actor, now)

        return await self._database.write(work)

    async def abandoned(self) -> "list[str]":
        """Candidates whose run was cancelled or failed: nobody will judge them."""
        found = await self._database.read(lambda c: rows(c, _SQL["abandoned_candidates"]))
        return [row["name"] for row in found]

    async def get(self, evaluation_id: str) -> Evaluation | None:
        found = await self._many("get_evaluation", evaluation_id=evaluation_id)
        return found[0] if found else None

    async def list(self, model: str | None = None, limit: int = 50) -> list[Evaluation]:
        """Newest first."""
        return await self._many("list_evaluations", model=model, limit=limit)

    async def of_run(self, run_id: str) -> "list[Evaluation]":
        """Newest first."""
        return await self._many("evaluations_of_run", run_id=run_id)

    async def _many(self, statement: str, **values: Any) -> "list[Evaluation]":
        found = await self._database.read(lambda c: rows(c, _SQL[statement], **values))
        return [
            msgspec.convert(row | {"report": msgspec.json.decode(row["report"])}, Evaluation)
            for row in found
        ]


def new_evaluation_id() -> str:
    return f"eval-{secrets.token_hex(5)}"


def _values(evaluation: Evaluation) -> dict[str, Any]:
    report = msgspec.json.encode(evaluation.report).decode()
    return msgspec.structs.asdict(evaluation) | {"report": report}


def _settle(cursor: Connection, outcome: Outcome, actor: str, now: datetime) -> Run:
    why = {"actor": actor, "reason": outcome.reason, "evidence": outcome.evidence}
    if outcome.adapter_to is not None and _is_candidate(cursor, outcome.adapter):
        move_adapter(cursor, outcome.adapter, outcome.adapter_to, **why)
    return move_run(cursor, outcome.run_id, outcome.run_to, now=now, **why)


def _is_candidate(cursor: Connection, name: str) -> bool:
    return bool(rows(cursor, _SQL["is_candidate"], name=name))
