"""The policy of one alias: every key operations people may write, its meaning and its default.

Keys and values that do not work yet stand in explain.py, which refuses them with a remedy.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from adaptd.daemon.policy.trigger import Trigger
from adaptd.daemon.policy.triggers import TRIGGERS
from adaptd.daemon.policy.values import (
    MARGIN_SCHEMA,
    Duration,
    Share,
    Strict,
    Timezone,
    read_duration,
    read_nats,
    read_points,
    refused,
    wrong,
)
from adaptd.daemon.wire.events import JudgingKind

MAX_WITHOUT_EVIDENCE = 0.5  # evidence comes quickest here; past it the guard sees less (D11)
MIN_HOLDOUT_GROUPS = 30  # a cluster-robust interval on fewer clusters is wrong

MetricName = Literal["exact_match", "nll"]
SuiteName = Literal["fresh", "golden"]
Watched = Literal["negative", "error", "latency"]
AtLeastOne = Field(min_length=1, strict=False)  # strict would refuse YAML's list for a tuple


class Caps(Strict):
    """Limits on examples of one person, and the least age of feedback.

    Feedback without a user counts as one person's for each API token.
    """

    per_user: PositiveInt = 20
    """Examples at most from one person, the newest first."""
    per_user_share: Share = Field(default=0.01, gt=0)
    """Share of all examples at most from one person; one example is always allowed."""
    min_age: Duration = read_duration("1h")
    """Quarantine: feedback younger than this is not used yet."""


class Select(Strict):
    """Answers that a run may learn from."""

    where: str = Field(default="true", min_length=1, max_length=10_000)
    """One SQL expression over the columns of `examples`; now() is the snapshot's time, in UTC.

    It has to name `tenant` where several tenants judge answers of the alias, or no run starts: the
    feedback of one tenant trains the answers that all of them get.
    """
    use: Annotated[tuple[JudgingKind, ...], AtLeastOne] = get_args(JudgingKind)
    """correction: the corrected text. rating: answers rated well and corrected by nobody."""
    caps: Caps = Caps()


class Holdout(Strict):
    """Examples kept back to judge candidates on, and never trained on."""

    share: Share = Field(default=0.2, ge=0.01, le=0.5)
    """Share of the groups of conversations kept back. A group stays on its side for good."""
    by: Literal["conversation"] = "conversation"
    """Conversations that share a last user message form one group."""
    at_least: int = Field(default=100, ge=MIN_HOLDOUT_GROUPS)
    """No run starts before so many items are held back, in at least 30 groups."""
    golden: str | None = Field(default=None, min_length=1)
    """JSON Lines inside the policy folder: {"messages": [...], "reference": "..."} on each line."""


class Curate(Strict):
    """Treatment of the selected examples."""

    holdout: Holdout = Holdout()


class TriggerEntry(Strict):
    """One reason to train. Exactly one of its keys is given."""

    @model_validator(mode="after")
    def has_one_key(self) -> Self:
        given = [value for _, value in self if value is not None]
        if len(given) != 1 or len(self.model_fields_set) != 1:
            known = ", ".join(type(self).model_fields)
            raise refused(
                f"has {len(self.model_fields_set)} keys", f"Give each entry exactly one of {known}"
            )
        return self

    @property
    def key(self) -> str:
        return next(name for name, value in self if value is not None)

    @property
    def wanted(self) -> Any:
        """The value given to the key."""
        return getattr(self, self.key)


def compose_entry(triggers: Iterable[Trigger[Any]]) -> type[TriggerEntry]:
    """Make the model of one entry of `train_when.any`: a key for each trigger that has one."""
    fields: dict[str, Any] = {
        trigger.key: (trigger.value | None, Field(default=None, description=trigger.about))
        for trigger in triggers
        if trigger.value is not None
    }
    return create_model("Trigger", __base__=TriggerEntry, __doc__=TriggerEntry.__doc__, **fields)


if TYPE_CHECKING:
    _Entry = TriggerEntry
else:
    _Entry = compose_entry(TRIGGERS)


class TrainWhen(Strict):
    """Conditions for the start of a run."""

    any: Annotated[tuple[_Entry, ...], AtLeastOne] = (_Entry.model_validate({"new_examples": 200}),)
    """A run starts when any of these holds."""
    cooldown: Duration = read_duration("6h")
    """Time between the end of a run and the start of the next."""


class Train(Strict):
    """Training of an adapter."""

    method: Literal["auto", "sft"] = "auto"
    """auto chooses by the data; this version always trains on corrections and approved answers."""
    rank: int = Field(default=8, ge=1, le=512)
    """Rank of the adapter; no more than vLLM was started with."""
    start_from: Literal["live", "base"] = "live"
    """Weights a run continues from."""
    steps: PositiveInt | None = Field(default=None, le=1_000_000)
    """Optimizer steps. Without it, `epochs` decides."""
    epochs: PositiveFloat = Field(default=3.0, le=1000)
    """Passes over all examples, where `steps` is not given."""
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

    metric: MetricName
    on: SuiteName


class Limit(Strict):
    """A metric that must not get worse by more than a margin."""

    metric: MetricName
    on: SuiteName
    by: Annotated[float, Field(gt=0), MARGIN_SCHEMA]
    """exact_match: `3 points` or 0.03. nll: nats per reference token, such as 0.05."""

    @field_validator("by", mode="before")
    @classmethod
    def in_its_unit(cls, value: Any, info: ValidationInfo) -> float:
        return read_nats(value) if info.data.get("metric") == "nll" else read_points(value)


class GatePolicy(Strict):
    """Evidence that a candidate needs before it gets traffic."""

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
    """Conditions that roll a candidate back, and evidence that lets it advance."""

    watch: Annotated[tuple[Watched, ...], AtLeastOne] = ("negative", "error", "latency")
    """Any of these rolls back."""
    promote_on: Annotated[tuple[Watched, ...], AtLeastOne] = ("negative",)
    """Evidence on one of these is needed for the steps past `evidence_above`."""
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """Chance of rolling back a candidate that is as good as live, over all looks together."""
    ratio: float = Field(default=1.5, gt=1, le=10)
    """Harm that must be ruled out: ratio of the candidate's rate to live's."""
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
    """Move of traffic to an accepted candidate."""

    split: Literal["conversation", "user"] = "conversation"
    """Unit that stays on one arm. user only where an application's `user` means one person."""
    steps: Annotated[tuple[Step, ...], AtLeastOne] = tuple(
        Step(weight=weight) for weight in (0.05, 0.25, 0.5, 0.95)
    )
    guard: Guard = Guard()
    holdback: Share = Field(default=0.05, le=0.5)
    """Share kept on the version before, after promotion: the guard compares with it."""
    when_inconclusive: Literal["hold", "ask"] = "hold"
    """hold waits for evidence. ask waits for a person."""
    approval: Literal["automatic", "manual"] = "automatic"
    """manual: an accepted candidate waits until an operator starts its rollout."""
    keep_watching: Duration = read_duration("7d")
    """Time that the guard goes on after promotion."""

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


def _check_alias(value: str) -> str:
    # Same letters as in `wire.routes.VERSION_NAME`, of which the alias is a part.
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    if not (0 < len(value) <= 63 and set(value) <= allowed and value[0].isalnum()):
        raise wrong(repr(value), "Use small letters, digits and . _ -, at most 63")
    return value


class Policy(Strict):
    """Everything adaptd may do by itself for one alias."""

    version: Literal[1]
    """Version of this file's format."""
    model: Annotated[str, AfterValidator(_check_alias)]
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


def compose_policy(triggers: Iterable[Trigger[Any]]) -> type[Policy]:
    """Make the policy model with other triggers than adaptd's own."""
    entries: Any = Annotated[tuple[compose_entry(triggers), ...], AtLeastOne]  # pyright: ignore[reportInvalidTypeForm] - made at run time
    when = create_model("TrainWhen", __base__=TrainWhen, any=(entries, ...))
    return create_model("Policy", __base__=Policy, train_when=(when, ...))
