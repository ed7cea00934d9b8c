"""Routes, request fields and headers that the gateway lets through. Everything else is refused.

vLLM's own routes load adapters, read files and stop the engine; some of its request fields render
templates of the caller's, jump the queue or take memory outside its plan. So both are opened one
by one (invariant 11).
"""

from adaptd.serving.capture.exchange import RequestKind

HEALTH = ("GET", "/health")
MODELS = ("GET", "/v1/models")
FEEDBACK = ("POST", "/v1/feedback")
CHAT = ("POST", "/v1/chat/completions")
COMPLETIONS = ("POST", "/v1/completions")

ANSWERING = {CHAT: RequestKind.CHAT, COMPLETIONS: RequestKind.COMPLETION}

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

# Headers that vLLM gets of a client's, and the client of vLLM's. X-Vllm-Priority is left out: with
# it a client would jump the queue.
REQUEST_HEADERS = frozenset(
    {b"accept", b"content-type", b"host", b"traceparent", b"tracestate", b"user-agent"}
)
RESPONSE_HEADERS = frozenset({b"cache-control", b"content-type", b"retry-after"})
