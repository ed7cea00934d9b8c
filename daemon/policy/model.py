"""The policy of one alias: every key operations people may write, its meaning and its default.

What a key of the design cannot do yet is in waiting.py, and refused with those words.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from adaptd.daemon.policy.values import (
    MARGIN_SCHEMA,
    Cron,
    Duration,
    Share,
    Timezone,
    read_duration,
    read_nats,
    read_points,
    refused,
    wrong,
)

MAX_WITHOUT_EVIDENCE = 0.5  # where evidence comes quickest; past it the guard sees less (D11)
MIN_HOLDOUT_GROUPS = 30  # a cluster-robust interval on fewer clusters is wrong (statistics)

Metric = Literal["exact_match", "nll"]
Suite = Literal["fresh", "golden"]
Watched = Literal["negative", "error", "latency"]
AtLeastOne = Field(min_length=1, strict=False)


class Strict(BaseModel):
    """A misspelt key is an error, never a silent default; nothing changes after it is checked."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Caps(Strict):
    """How much of what is learnt may come from one person, and how old it has to be.

    Who left no user counts as one person with everybody else who used the same API token.
    """

    per_user: PositiveInt = 20
    """Examples at most from one person, the newest first."""
    per_user_share: Share = Field(default=0.01, gt=0)
    """Share of all examples at most from one person; one example is always allowed."""
    min_age: Duration = read_duration("1h")
    """Quarantine: feedback younger than this is not used yet."""


class Select(Strict):
    """Which answers are learnt from."""

    where: str = Field(default="true", min_length=1, max_length=10_000)
    """One SQL expression over the columns of `examples`; now() is the snapshot's time, in UTC.

    Where several tenants judge answers of the alias it has to name `tenant`, or nothing is trained.
    What one of them writes trains what all who use the alias are served.
    """
    use: Annotated[tuple[Literal["correction", "rating"], ...], AtLeastOne] = (
        "correction",
        "rating",
    )
    """correction: the corrected text. rating: answers rated well and corrected by nobody."""
    caps: Caps = Caps()


class Holdout(Strict):
    """What is kept back to judge candidates on, and never trained on."""

    share: Share = Field(default=0.2, ge=0.01, le=0.5)
    """Share of the groups of conversations kept back. A group stays on its side for good."""
    by: Literal["conversation"] = "conversation"
    """Conversations that share a last user message form one group."""
    at_least: int = Field(default=100, ge=MIN_HOLDOUT_GROUPS)
    """No run starts before so many items are held back, in at least 30 groups."""
    golden: str | None = Field(default=None, min_length=1)
    """JSON Lines inside the policy folder: {"messages": [...], "reference": "..."} on each line."""


class Curate(Strict):
    """What becomes of the selected examples."""

    holdout: Holdout = Holdout()


class NegativeShare(Strict):
    """Starts a run when answers are judged badly too often."""

    above: Share
    """Share of the judged answers that were rated below zero or corrected."""
    over: Duration
    """How far back to look."""
    at_least: PositiveInt = 100
    """Judged answers needed before the share means anything."""


class Trigger(Strict):
    """One reason to train. Exactly one of its keys is given."""

    new_examples: PositiveInt | None = None
    """Usable examples that no version saw yet. Runs that failed on them are tried twice again."""
    negative_share: NegativeShare | None = None
    cron: Cron | None = None
    """Minute hour day month weekday, in the policy's time zone; weekday 0 and 7 are Sunday."""

    @model_validator(mode="after")
    def one_reason(self) -> Self:
        given = [value for _, value in self if value is not None]
        if len(given) != 1 or len(self.model_fields_set) != 1:
            raise refused(
                f"has {len(self.model_fields_set)} keys",
                "Give each entry exactly one of new_examples, negative_share, cron",
            )
        return self


class TrainWhen(Strict):
    """When a run starts."""

    any: Annotated[tuple[Trigger, ...], AtLeastOne] = (Trigger(new_examples=200),)
    """A run starts when any of these holds."""
    cooldown: Duration = read_duration("6h")
    """Time between the end of a run and the start of the next."""


class Train(Strict):
    """How an adapter is trained."""

    method: Literal["auto", "sft"] = "auto"
    """auto chooses by the data; this version always trains on corrections and approved answers."""
    rank: int = Field(default=8, ge=1, le=512)
    """Rank of the adapter; no more than vLLM was started with."""
    start_from: Literal["live", "base"] = "live"
    """Weights a run continues from."""
    steps: PositiveInt | None = Field(default=None, le=1_000_000)
    """Optimizer steps. Without it, `epochs` decides."""
    epochs: PositiveFloat = Field(default=3.0, le=1000)
    """How often every example is seen, where `steps` is not given."""
    batch: int = Field(default=16, ge=1, le=4096)
    """Examples a step."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Highest learning rate; it decays to zero."""
    max_tokens: int = Field(default=1024, ge=16, le=1_000_000)
    """Examples longer than this, prompt and answer together, are left out and counted."""
    max_time: Duration = read_duration("2h")
    """All attempts of one run together."""


class Improvement(Strict):
    """A metric a candidate may be accepted for."""

    metric: Metric
    on: Suite


class Limit(Strict):
    """A metric that must not get worse by more than a margin."""

    metric: Metric
    on: Suite
    by: Annotated[float, Field(gt=0), MARGIN_SCHEMA]
    """exact_match: `3 points` or 0.03. nll: nats per reference token, such as 0.05."""

    @field_validator("by", mode="before")
    @classmethod
    def in_its_unit(cls, value: Any, info: ValidationInfo) -> float:
        return read_nats(value) if info.data.get("metric") == "nll" else read_points(value)


class GatePolicy(Strict):
    """What a candidate must show before it sees traffic."""

    must_improve: Annotated[tuple[Improvement, ...], AtLeastOne] = (
        Improvement(metric="exact_match", on="fresh"),
    )
    """Any of these, by Holm's method."""
    must_not_drop: Annotated[tuple[Limit, ...], Field(strict=False)] = ()
    """All of these; an empty list checks nothing."""
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """Chance of accepting one that is no better, over all candidates of a holdout version."""


class Step(Strict):
    """One step of a rollout."""

    weight: Share = Field(gt=0)
    """Share of the units that the candidate answers, below 100%: live has to be compared with."""
    at_least: Duration = read_duration("30m")
    """Time before the next step."""
    units: NonNegativeInt = 200
    """Units the candidate must have answered in this step before the next."""

    @field_validator("weight")
    @classmethod
    def leaves_some_on_live(cls, weight: float) -> float:
        if weight >= 1:
            raise refused(
                "is 100%, which leaves nothing on live to compare with",
                "Give less than 100%, such as 95%",
            )
        return weight


class Guard(Strict):
    """What takes a candidate back, and what lets it on."""

    watch: Annotated[tuple[Watched, ...], AtLeastOne] = ("negative", "error", "latency")
    """Any of these rolls back."""
    promote_on: Annotated[tuple[Watched, ...], AtLeastOne] = ("negative",)
    """Evidence on one of these is needed for the steps past `evidence_above`."""
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """Chance of rolling back a candidate that is as good as live, however often it is looked at."""
    ratio: float = Field(default=1.5, gt=1, le=10)
    """How much worse than live, as a ratio of rates, must be ruled out."""
    maturity: Duration = read_duration("24h")
    """Age at which a unit's feedback is counted; longer than most feedback takes to arrive."""
    evidence_above: Share = 0.25
    """Steps with a larger weight need the promotion test; 50% at most."""

    @field_validator("evidence_above")
    @classmethod
    def asks_for_evidence(cls, share: float) -> float:
        if share > MAX_WITHOUT_EVIDENCE:
            raise refused(
                f"is {share:.0%}, which lets a candidate on without evidence",
                f"Give {MAX_WITHOUT_EVIDENCE:.0%} or less",
            )
        return share

    @model_validator(mode="after")
    def promotes_on_what_it_watches(self) -> Self:
        if missing := set(self.promote_on) - set(self.watch):
            names = ", ".join(sorted(missing))
            raise refused(f"promotes on {names}, which is not watched", f"Add {names} to watch")
        return self


class RolloutPolicy(Strict):
    """How traffic moves to an accepted candidate."""

    split: Literal["conversation", "user"] = "conversation"
    """What stays on one arm. user only where applications send a `user` that means one person."""
    steps: Annotated[tuple[Step, ...], AtLeastOne] = tuple(
        Step(weight=weight) for weight in (0.05, 0.25, 0.5, 0.95)
    )
    guard: Guard = Guard()
    holdback: Share = Field(default=0.05, le=0.5)
    """Share kept on the version before, after promotion: what the guard compares with."""
    when_inconclusive: Literal["hold", "ask"] = "hold"
    """hold waits for evidence. ask waits for a person."""
    approval: Literal["automatic", "manual"] = "automatic"
    """manual: an accepted candidate waits until somebody starts its rollout."""
    keep_watching: Duration = read_duration("7d")
    """How long the guard goes on after promotion."""

    @field_validator("steps")
    @classmethod
    def weights_rise(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        weights = [step.weight for step in steps]
        if weights != sorted(set(weights)):
            shown = ", ".join(f"{weight:.0%}" for weight in weights)
            raise refused(f"has the weights {shown}", "Let weight rise at every step")
        return steps

    @model_validator(mode="after")
    def something_is_held_back(self) -> Self:
        if self.keep_watching and not self.holdback:
            raise refused(
                "keeps watching without a holdback: at full weight the guard sees nothing",
                "Set holdback above 0%, or keep_watching to 0s",
            )
        return self


def _alias(value: str) -> str:
    if not _is_alias(value):
        raise wrong(repr(value), "Use small letters, digits and . _ -, at most 63")
    return value


def _is_alias(value: str) -> bool:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    return 0 < len(value) <= 63 and set(value) <= allowed and value[0].isalnum()


class Policy(Strict):
    """Everything adaptd may do by itself for one alias."""

    version: Literal[1]
    """Version of this file's format."""
    model: Annotated[str, AfterValidator(_alias)]
    """The alias that applications use."""
    base: str = Field(min_length=1)
    """A name from the operator's [bases] settings."""
    timezone: Timezone = "UTC"
    """IANA time zone of every cron."""
    select: Select = Select()
    curate: Curate = Curate()
    train_when: TrainWhen = TrainWhen()
    train: Train = Train()
    gate: GatePolicy = GatePolicy()
    rollout: RolloutPolicy = RolloutPolicy()

    @model_validator(mode="after")
    def golden_is_there(self) -> Self:
        uses = [metric.on for metric in (*self.gate.must_improve, *self.gate.must_not_drop)]
        if "golden" in uses and self.curate.holdout.golden is None:
            raise refused(
                "has a gate on golden, but no golden file",
                "Name the file in curate.holdout.golden",
            )
        return self
