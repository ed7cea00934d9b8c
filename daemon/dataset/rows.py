"""Rows of token ids from examples and golden items. Unusable ones are counted, never cut."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from adaptd.daemon.dataset.example import Example
from adaptd.daemon.dataset.groups import Split
from adaptd.daemon.dataset.render import Renderer, RenderError
from adaptd.daemon.dataset.snapshot import Contents, SuiteRow, TrainRow, train_row
from adaptd.daemon.policy.golden import Golden, GoldenItem
from adaptd.daemon.wire.errors import PolicyError

# Golden items have no day of their own, and templates may print one.
_NO_DAY = datetime(2000, 1, 1, 12, tzinfo=UTC)


class Rendered(msgspec.Struct, frozen=True):
    """The snapshot's rows, and the number of examples without one, by reason."""

    train: list[TrainRow]
    fresh: list[SuiteRow]
    golden: list[SuiteRow]
    refused: dict[str, int]

    @property
    def contents(self) -> Contents:
        return Contents(train=self.train, fresh=self.fresh, golden=self.golden)

    @property
    def groups(self) -> int:
        """Number of clusters in the fresh suite."""
        return len({row.cluster for row in self.fresh})


def render(
    split: Split, golden: Golden | None, renderer: Renderer, *, version: int, max_tokens: int
) -> Rendered:
    """Render both sides; `version` is the holdout version to measure on.

    Raises:
        PolicyError: a golden item cannot be rendered: the operator's own file is wrong.
    """
    refused: Counter[str] = Counter()
    train = [
        train_row(*ids, interaction=one.interaction, feedback=one.feedback, group=group)
        for one, group in split.train
        for ids in _render_example(renderer, one, max_tokens, refused)
    ]
    fresh = [
        SuiteRow(one.feedback, group, *ids, one.answer)
        for one, group, of in split.holdout
        if of == version
        for ids in _render_example(renderer, one, max_tokens, refused)
    ]
    rows = [_render_golden(renderer, golden, item) for item in golden.items] if golden else []
    return Rendered(train, fresh, rows, dict(sorted(refused.items())))


def _render_example(
    renderer: Renderer, example: Example, max_tokens: int, refused: Counter[str]
) -> Iterable[tuple[list[int], list[int]]]:
    """Yield the ids of prompt and answer once, or nothing where they cannot be used."""
    try:
        prompt = renderer.prompt_ids(
            example.messages,
            tools=example.tools,
            template_args=example.template_args,
            reasoning_effort=example.reasoning_effort,
            at=example.asked_at,
        )
        answer = renderer.answer_ids(example.answer)
    except RenderError:
        refused["not_rendered"] += 1
        return
    if len(prompt) + len(answer) > max_tokens:
        refused["too_long"] += 1
        return
    yield prompt, answer


def _render_golden(renderer: Renderer, golden: Golden, item: GoldenItem) -> SuiteRow:
    try:
        prompt = renderer.prompt_ids(item.messages, tools=item.tools, at=_NO_DAY)
        return SuiteRow(
            item.name, item.name, prompt, renderer.answer_ids(item.reference), item.reference
        )
    except RenderError as error:
        problem = f"item {item.name}: {error.where}: {error.problem}"
        raise PolicyError(str(golden.path), problem, "Correct the item or remove it") from error
