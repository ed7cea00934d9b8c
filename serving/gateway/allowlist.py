"""Where clients may go and what they may ask for. Everything that is not here is refused.

vLLM's own routes load adapters, read files and stop the engine; some of its request fields render
templates of the caller's, jump the queue or take memory outside its plan. So both are opened one by
one (design invariant 11).
"""

from enum import StrEnum

HEALTH = ("GET", "/health")
MODELS = ("GET", "/v1/models")
FEEDBACK = ("POST", "/v1/feedback")
CHAT = ("POST", "/v1/chat/completions")
COMPLETIONS = ("POST", "/v1/completions")


class Kind(StrEnum):
    """Which of the two answering routes a request came by."""

    CHAT = "chat"
    COMPLETION = "completion"


ANSWERING = {CHAT: Kind.CHAT, COMPLETIONS: Kind.COMPLETION}

_BOTH = frozenset(
    {
        "model",
        "frequency_penalty",
        "ignore_eos",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "metadata",
        "min_p",
        "min_tokens",
        "n",
        "presence_penalty",
        "repetition_penalty",
        "response_format",
        "seed",
        "skip_special_tokens",
        "stop",
        "stop_token_ids",
        "stream",
        "stream_options",
        "temperature",
        "top_k",
        "top_p",
        "user",
    }
)
CHAT_FIELDS = _BOTH | {
    "messages",
    "chat_template_kwargs",
    "max_completion_tokens",
    "parallel_tool_calls",
    "reasoning_effort",
    "tool_choice",
    "tools",
    "top_logprobs",
}
COMPLETION_FIELDS = _BOTH | {"prompt", "suffix"}

# The part of a request that is rendered into the prompt; the rest are parameters.
RENDERED = frozenset(
    {
        "messages",
        "prompt",
        "suffix",
        "tools",
        "tool_choice",
        "response_format",
        "chat_template_kwargs",
    }
)

# What vLLM may see of a client's headers, and the client of vLLM's. X-Vllm-Priority is not here.
REQUEST_HEADERS = frozenset(
    {b"accept", b"content-type", b"host", b"traceparent", b"tracestate", b"user-agent"}
)
RESPONSE_HEADERS = frozenset({b"cache-control", b"content-type", b"retry-after"})
