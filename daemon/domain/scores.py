"""What one adapter version scored on one item of a suite. Pure."""

import msgspec


class Score(msgspec.Struct, frozen=True):
    """`exact`: the greedy answer was the reference. `nll`: nats over the whole reference.

    The reference's stop token is part of it.
    """

    exact: bool
    nll: float
    reference_tokens: int

    @property
    def nll_per_token(self) -> float:
        return self.nll / self.reference_tokens
