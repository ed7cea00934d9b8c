"""Measure a version on items, on the serving host itself: greedy answers and log-probabilities."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from adaptd.daemon.domain.ports import AdapterHost
from adaptd.daemon.domain.scores import Score
from adaptd.daemon.evaluation.suites import Item
from adaptd.daemon.store.lifecycle.evaluations import EvaluationStore
from adaptd.daemon.wire.errors import HostError

# Tokens an answer may have beyond its reference: the same text can be spelt with more tokens than
# the tokenizer would, and an answer that goes on past the reference has to be seen to do so.
SLACK_TOKENS = 8
IN_FLIGHT = 4  # sequences at a time: a quarter of the default seats, the rest is for customers


class Listener(Protocol):
    """Hears how many items are done. What it raises ends the measuring."""

    async def stored(self, items: int) -> None: ...

    async def measured(self, items: int) -> None: ...


def normalised(text: str) -> str:
    """What two answers are compared by: NFC, without space at the ends, runs of space as one.

    Case counts: it carries meaning in codes, names and JSON, and a person wrote the reference.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def fits(item: Item, max_model_len: int) -> bool:
    """True where the host can answer and score the item, whichever version is asked."""
    return item.tokens + SLACK_TOKENS <= max_model_len


def in_batches(items: Iterable[Item], *, size: int, max_model_len: int) -> list[list[Item]]:
    """Batches of at most `size`, with references of about the same length, short ones first.

    One batch has one token limit; no member's prompt and that limit exceed the host's length.
    """
    batches: list[list[Item]] = []
    for item in sorted(items, key=lambda item: (len(item.reference_ids), item.key)):
        batch = batches[-1] if batches else []
        longest = max(len(member.prompt_ids) for member in [*batch, item])
        if batch and len(batch) < size and longest + answer_limit([item]) <= max_model_len:
            batch.append(item)
        else:
            batches.append([item])
    return batches


def answer_limit(items: Sequence[Item]) -> int:
    """Tokens that the answers to a batch may have."""
    return max(len(item.reference_ids) for item in items) + SLACK_TOKENS


class Bench:
    """Measures through the host, politely, and keeps every score: a restart goes on from there."""

    def __init__(
        self, host: AdapterHost, scores: EvaluationStore, *, in_flight: int = IN_FLIGHT
    ) -> None:
        self._host = host
        self._scores = scores
        self._in_flight = in_flight

    async def measure(
        self,
        adapter: str | None,
        suite: str,
        items: Sequence[Item],
        *,
        max_model_len: int,
        listener: Listener,
    ) -> dict[str, Score]:
        """The score of every item, by its key. None measures the base.

        `suite` is the name the scores are kept under. Only items that `fits` accepts may be given.

        Raises:
            HostError: the host is away or does not serve the version. What was measured is kept.
        """
        wanted = {item.key: item for item in items}
        known = await self._scores.scores(adapter, suite, list(wanted))
        await listener.stored(len(known))
        missing = [item for key, item in wanted.items() if key not in known]
        for batch in in_batches(missing, size=self._in_flight, max_model_len=max_model_len):
            found = await self._score(adapter, batch)
            await self._scores.add_scores(adapter, suite, found)
            known |= found
            await listener.measured(len(found))
        return known

    async def _score(self, adapter: str | None, batch: Sequence[Item]) -> Mapping[str, Score]:
        prompts = [item.prompt_ids for item in batch]
        answers = await self._host.generate(adapter, prompts, max_tokens=answer_limit(batch))
        sequences = [[*item.prompt_ids, *item.reference_ids] for item in batch]
        lines = await self._host.logprobs(adapter, sequences)
        for line, sequence in zip(lines, sequences, strict=True):
            if len(line) != len(sequence):
                problem = f"it scored {len(line)} of {len(sequence)} tokens"
                raise HostError("evaluation", problem, "Look at the server's log")
        return {
            item.key: score_of(item, answer, line)
            for item, answer, line in zip(batch, answers, lines, strict=True)
        }


def score_of(item: Item, answer: str, logprobs: Sequence[float]) -> Score:
    """`logprobs` are those of prompt and reference together."""
    count = len(item.reference_ids)
    exact = normalised(answer) == normalised(item.reference)
    return Score(exact, -float(sum(logprobs[-count:])), count)
