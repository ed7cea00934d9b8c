"""Curation of selected examples: one pure step a file, run in the order of `STEPS`."""

from collections import Counter
from collections.abc import Iterable, Sequence

from adaptd.daemon.dataset.curation.last_word import LastWord
from adaptd.daemon.dataset.curation.one_answer import OneAnswer
from adaptd.daemon.dataset.curation.person_cap import PersonCap
from adaptd.daemon.dataset.curation.step import Curated, CurationStep
from adaptd.daemon.dataset.example import Example
from adaptd.daemon.policy.model import Select

# The cap comes before equal prompts are settled: what one person may not add to the training set
# they may not take out of it either, by answering other people's prompts later.
STEPS: tuple[CurationStep, ...] = (LastWord(), PersonCap(), OneAnswer())


def curate(
    examples: Iterable[Example], policy: Select, *, steps: Sequence[CurationStep] = STEPS
) -> Curated:
    """Run the steps one after the other; each gets what the one before kept."""
    kept, refused = list(examples), Counter[str]()
    for step in steps:
        kept.sort(key=lambda example: (example.said_at, example.feedback))
        curated = step.apply(kept, policy)
        refused.update(curated.refused)
        kept = curated.kept
    return Curated(kept, refused)
