"""One answer for each prompt."""

from collections.abc import Sequence

from adaptd.daemon.dataset.curation.step import Curated, keep_newest
from adaptd.daemon.dataset.example import Example
from adaptd.daemon.policy.model import Select


class OneAnswer:
    """Keeps the newest of all answers to a prompt, whoever gave it."""

    name = "one_answer"

    def apply(self, examples: Sequence[Example], policy: Select) -> Curated:
        del policy  # every policy wants it
        kept = keep_newest(examples, [example.prompt for example in examples])
        return Curated(kept, {"same_prompt": len(examples) - len(kept)})
