"""A training method from outside the package: its own row layout and its own loss.

As a program it registers the method in its process and is a trainer from there on, so the package
finds the method by the name in the job and no file of the package knows it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adaptd.daemon.training.worker.__main__ import main
from adaptd.daemon.training.worker.data import RowLayout, check_ids
from adaptd.daemon.training.worker.methods import TrainingMethod, register_method
from adaptd.daemon.training.worker.methods.sft import AnswerRow, AnswerTrainer
from adaptd.daemon.training.worker.model import logits_at

NAME = "last_token"


def parse_tokens(number: int, values: Mapping[str, Any], vocabulary: int) -> AnswerRow:
    """A row whose last token is learnt."""
    ids = values["tokens"]
    check_ids("row", number, ids, vocabulary)
    return AnswerRow(ids, [len(ids) - 1], 1.0)


class MissingShareTrainer(AnswerTrainer):
    """Learns by the probability that the learnt tokens lack: a loss from 0 to 1."""

    def micro_batch_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = logits_at(model, inputs["input_ids"], inputs["positions"])
        shares = logits.softmax(-1).gather(1, inputs["targets"].unsqueeze(1)).squeeze(1)
        return ((1 - shares) * inputs["weights"]).sum()


register_method(
    TrainingMethod(
        name=NAME,
        rows=RowLayout(("tokens",), parse_tokens),
        make_trainer=MissingShareTrainer,
    )
)

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
