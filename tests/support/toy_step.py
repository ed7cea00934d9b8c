"""A curation step of nobody's policy, written as an outsider would: one file is enough."""

from collections.abc import Sequence

from adaptd.daemon.dataset.curation.step import Curated
from adaptd.daemon.dataset.example import Example
from adaptd.daemon.policy.model import Select


class ShortAnswers:
    """Keeps answers of at most some letters."""

    name = "short_answers"

    def __init__(self, most_letters: int) -> None:
        self._most_letters = most_letters

    def apply(self, examples: Sequence[Example], policy: Select) -> Curated:
        kept = [example for example in examples if len(example.answer) <= self._most_letters]
        return Curated(kept, {"long_answer": len(examples) - len(kept)})
