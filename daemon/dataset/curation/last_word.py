"""The last answer that one person gave to one prompt."""

from collections.abc import Sequence

from adaptd.daemon.dataset.curation.step import Curated, keep_newest
from adaptd.daemon.dataset.example import Example
from adaptd.daemon.policy.model import Select


class LastWord:
    """Drops what a person said of a prompt before they said it anew."""

    name = "last_word"

    def apply(self, examples: Sequence[Example], policy: Select) -> Curated:
        del policy  # every policy wants it
        kept = keep_newest(examples, [(example.author, example.prompt) for example in examples])
        return Curated(kept, {"same_prompt": len(examples) - len(kept)})
