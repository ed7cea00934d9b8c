"""Keys and values of the design that do not work yet: refused with these words, never ignored."""

NOT_YET = "does not work in this version of adaptd"

KEYS = {
    "curate.redact": "Remove the key; redact before you send events",
    "curate.near_duplicates": "Remove the key; equal texts are removed without it",
    "curate.replay_share": "Remove the key; a run sees every selected example",
    "train_when.budget": "Remove the key; use train.max_time and train_when.cooldown",
    "train_when.any[].drift": "Use new_examples, negative_share or cron",
    "rollout.shadow": "Remove the key; start with a small weight",
}

VALUES = {
    ("select.use[]", "preference"): "Use correction and rating",
    ("train.method", "dpo"): "Write auto or sft",
    ("train.method", "kto"): "Write auto or sft",
    ("gate.must_improve[].on", "history"): "Write fresh or golden",
    ("gate.must_not_drop[].on", "history"): "Write fresh or golden",
    ("curate.holdout.by", "user"): "Write conversation",
}
