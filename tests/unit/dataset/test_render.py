"""The renderer against transformers' own chat templates, on SmolLM2's and the tiny base's."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from daemon.dataset.render import Renderer, RenderError
from daemon.domain.errors import AdaptdError

USER = {"role": "user", "content": "where is my card?"}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"id": "c1", "type": "function", "function": {"name": "track", "arguments": '{"id": 7}'}}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "track", "description": "find it", "parameters": {"type": "object"}},
}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "single turn": [USER],
    "system prompt": [SYSTEM, USER],
    "several turns": [SYSTEM, USER, {"role": "assistant", "content": "delivery"}, USER],
    "tool call": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "in Porto"},
    ],
    "unicode": [{"role": "user", "content": "¿dónde está? Größe 東京 <b>&"}],
}


@pytest.fixture(scope="module", params=["tiny", "smollm2"])
def base_path(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("tiny_base" if request.param == "tiny" else "base")


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, [TOOL]])
def test_ids_equal_those_of_transformers(
    base_path: Path, name: str, tools: list[dict[str, Any]] | None
) -> None:
    messages = CONVERSATIONS[name]
    parsed = [_with_parsed_arguments(message) for message in messages]
    theirs = AutoTokenizer.from_pretrained(base_path).apply_chat_template(
        parsed, tools=tools, add_generation_prompt=True, return_dict=False
    )

    assert Renderer(base_path).prompt_ids(messages, tools=tools) == theirs


def test_content_parts_are_joined_as_the_server_joins_them(tiny_base: Path) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    renderer = Renderer(tiny_base)

    joined = renderer.prompt_ids([{"role": "user", "content": "one\ntwo"}])

    assert renderer.prompt_ids([{"role": "user", "content": parts}]) == joined


def test_a_picture_is_refused_not_dropped(tiny_base: Path) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:"}}

    with pytest.raises(RenderError, match="not text"):
        Renderer(tiny_base).prompt_ids([{"role": "user", "content": [part]}])


def test_an_answer_ends_with_the_token_the_server_stops_on(base_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_path)

    ids = Renderer(base_path).answer_ids("lost_card")

    assert tokenizer.decode(ids) == "lost_card<|im_end|>"


def test_a_template_cannot_reach_out_of_its_sandbox(tiny_base: Path, tmp_path: Path) -> None:
    for file in tiny_base.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")

    with pytest.raises(RenderError):
        Renderer(tmp_path).prompt_ids([USER])


def test_a_base_without_template_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to(tiny_base / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text("{}")

    with pytest.raises(AdaptdError, match="no chat template"):
        Renderer(tmp_path)


def _with_parsed_arguments(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    function = {"name": "track", "arguments": {"id": 7}}
    return message | {"content": "", "tool_calls": [{**CALL, "function": function}]}
