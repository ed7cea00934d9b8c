"""The measuring of a version on items, on the serving host itself: answers and log-probs."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from adaptd.daemon.domain.ports import AdapterHost
from adaptd.daemon.domain.scores import Score
from adaptd.daemon.evaluation.suites import Item
from adaptd.daemon.store.lifecycle.evaluations import EvaluationStore
from adaptd.daemon.wire.errors import HostError

# Tokens an answer may have beyond its reference. The same text can be spelt with more tokens than
# the tokenizer would use, and an answer that continues past the reference has to show that.
SLACK_TOKENS = 8
IN_FLIGHT = 4  # sequences at a time: a quarter of the default seats; customers have the rest


class Listener(Protocol):
    """Receives the number of items that are done. An error that it raises ends the measuring."""

    async def stored(self, items: int) -> None: ...

    async def measured(self, items: int) -> None: ...


def normalise_text(text: str) -> str:
    """The form in which answers are compared: NFC, no space at the ends, runs of space as one."""
    # Case counts: it carries meaning in codes, names and JSON, and a person wrote the reference.
    return " ".join(unicodedata.normalize("NFC", text).split())


def fits(item: Item, max_model_len: int) -> bool:
    """True where the host can answer and score the item, whichever version is asked."""
    return item.tokens + SLACK_TOKENS <= max_model_len


def in_batches(items: Iterable[Item], *, size: int, max_model_len: int) -> list[list[Item]]:
    """Batches of at most `size`, with references of about the same length, short ones first.

    A batch has one token limit. With it no member's prompt exceeds the host's length.
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
    """Measures through the host, a few items at a time, and keeps every score for a restart."""

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
        """The score of every item, by its key. An adapter of None is the base.

        `suite` is the name the scores are kept under. The caller gives only items that `fits`
        accepts.

        Raises:
            HostError: the host is away or does not serve the version. Scores so far are kept.
        """
        wanted = {item.key: item for item in items}
        known = await self._scores.scores(adapter, suite, list(wanted))
        await listener.stored(len(known))
        missing = [item for key, item in wanted.items() if key not in known]
        for batch in in_batches(missing, size=self._in_flight, max_model_len=max_model_len):
            found = await self._score_batch(adapter, batch)
            await self._scores.add_scores(adapter, suite, found)
            known |= found
            await listener.measured(len(found))
        return known

    async def _score_batch(self, adapter: str | None, batch: Sequence[Item]) -> Mapping[str, Score]:
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
    """The score of an item. `logprobs` are those of prompt and reference together."""
    count = len(item.reference_ids)
    exact = normalise_text(answer) == normalise_text(item.reference)
    return Score(exact, -float(sum(logprobs[-count:])), count)
