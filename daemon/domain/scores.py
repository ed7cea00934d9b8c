"""The score of one adapter version on one item of a suite. Pure."""

import msgspec


class Score(msgspec.Struct, frozen=True):
    """One score. `exact`: the greedy answer was the reference.

    `nll`: nats over the whole reference, its stop token included.
    """

    exact: bool
    nll: float
    reference_tokens: int

    @property
    def nll_per_token(self) -> float:
        return self.nll / self.reference_tokens
