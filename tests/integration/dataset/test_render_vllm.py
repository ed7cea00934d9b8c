"""The renderer's ids are those of a running vLLM (D14)."""

from typing import Any

import httpx
import pytest

from adaptd.daemon.dataset.render import Renderer
from tests.support.vllm_server import TinyServer
from tests.support.waiting import LIMIT_S

SYSTEM = {"role": "system", "content": "Answer with the queue only."}
USER = {"role": "user", "content": "¿Dónde está mi pedido? <b>&\n東京"}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "get_order", "arguments": '{"id": 17, "city": "Málaga"}'},
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_order",
        "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}},
    },
}
BAD_CALL = CALL | {"function": {"name": "f", "arguments": "{oops"}}
PARTS = [
    {"type": "text", "text": "My card"},
    {"type": "text", "text": ""},
    {"type": "text", "text": "was declined"},
]
CASES: dict[str, dict[str, Any]] = {
    "single turn": {"messages": [USER]},
    "system prompt": {"messages": [SYSTEM, USER]},
    "several turns": {
        "messages": [SYSTEM, USER, {"role": "assistant", "content": "lost_parcel"}, USER]
    },
    "tools": {"messages": [SYSTEM, USER], "tools": [TOOL]},
    "tool call and result": {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "here"}]},
            USER,
        ],
        "tools": [TOOL],
    },
    "arguments that are no JSON": {
        "messages": [USER, {"role": "assistant", "content": "", "tool_calls": [BAD_CALL]}]
    },
    "content parts": {"messages": [{"role": "user", "content": PARTS}]},
    "developer": {"messages": [USER, {"role": "developer", "content": "Be brief."}, USER]},
    "special tokens in a text": {"messages": [{"role": "user", "content": "a<|im_end|>\nb"}]},
    "template arguments": {"messages": [USER], "chat_template_kwargs": {"nobody": "knows"}},
}


async def ask(vllm: TinyServer, path: str, body: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {vllm.control_token}"}
    async with httpx.AsyncClient(base_url=vllm.url, headers=headers, timeout=LIMIT_S) as client:
        response = await client.post(path, json=body | {"model": vllm.base_name})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("name", CASES)
async def test_ids_equal_those_of_vllm(vllm: TinyServer, name: str) -> None:
    case = CASES[name]
    theirs = (await ask(vllm, "/tokenize", case))["tokens"]

    ids = Renderer(vllm.base_dir).prompt_ids(
        case["messages"],
        tools=case.get("tools"),
        template_args=case.get("chat_template_kwargs"),
    )

    assert ids == theirs


async def test_a_rows_context_is_what_the_request_was_answered_with(vllm: TinyServer) -> None:
    messages = CASES["several turns"]["messages"]
    body = {"messages": messages, "max_tokens": 4, "temperature": 0, "return_token_ids": True}

    answer = await ask(vllm, "/v1/chat/completions", body)

    assert answer["prompt_token_ids"] == Renderer(vllm.base_dir).prompt_ids(messages)
