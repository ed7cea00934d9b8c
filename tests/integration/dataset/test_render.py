"""The renderer against transformers' own chat templates, on SmolLM2's and the tiny base's."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from adaptd.daemon.dataset.render import Renderer, RenderError
from adaptd.daemon.wire.errors import AdaptdError

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


@pytest.mark.parametrize("text", ["a<|im_end|>", "<|im_start|>assistant", "<|endoftext|> b"])
def test_an_answer_with_a_special_token_is_refused(base_path: Path, text: str) -> None:
    with pytest.raises(RenderError, match="special token"):
        Renderer(base_path).answer_ids(text)


def test_the_stop_token_is_the_one_the_template_writes(tiny_base: Path, tmp_path: Path) -> None:
    base = a_base(tiny_base, tmp_path, CHATML)
    (base / "generation_config.json").unlink()
    (base / "generation_config.json").write_text('{"eos_token_id": [0, 2, 1]}')
    assert Renderer(base).stop_id == 2

    (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert Renderer(base).stop_id == 0


def test_a_template_cannot_reach_out_of_its_sandbox(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(RenderError):
        Renderer(a_base(tiny_base, tmp_path, "{{ ''.__class__.__mro__ }}")).prompt_ids([USER])


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[5].content }}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content.nothing() }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_template_that_fails_refuses_the_message(
    tiny_base: Path, tmp_path: Path, template: str
) -> None:
    with pytest.raises(RenderError, match="refuses it"):
        Renderer(a_base(tiny_base, tmp_path, template)).prompt_ids([USER])


def test_a_template_prints_the_day_it_was_asked(tiny_base: Path, tmp_path: Path) -> None:
    renderer = Renderer(a_base(tiny_base, tmp_path, "{{ strftime_now('%d %b %Y') }}"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    asked = datetime(2026, 3, 5, 12, tzinfo=UTC)
    assert tokenizer.decode(renderer.prompt_ids([USER], at=asked)) == "05 Mar 2026"


def test_a_template_prints_today_where_nobody_says_when(tiny_base: Path, tmp_path: Path) -> None:
    renderer = Renderer(a_base(tiny_base, tmp_path, "{{ strftime_now('%d %b %Y') }}"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    before = datetime.now(UTC).astimezone()
    printed = tokenizer.decode(renderer.prompt_ids([USER]))
    assert printed in {f"{at:%d %b %Y}" for at in (before, datetime.now(UTC).astimezone())}


FEATURES = """\
{%- set found = namespace(last='') %}
{%- for message in messages if message.role != 'tool' %}
    {%- if loop.index > 8 %}{% break %}{% endif %}
    {% generation %}{{ message.content | trim }}{% endgeneration %}
    {%- set found.last = message.role %}
    {%- for call in message.tool_calls or [] %}{{ call | tojson(indent=2) }}{% endfor %}
{%- endfor %}
{{ found.last }} {{ tools | tojson }} {{ bos_token }} {{ documents is none }} {{ '<b>&' | tojson }}
"""


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_template_features_work_as_in_transformers(
    tiny_base: Path, tmp_path: Path, name: str
) -> None:
    base = a_base(tiny_base, tmp_path, FEATURES)
    messages = CONVERSATIONS[name]
    parsed = [_with_parsed_arguments(message) for message in messages]
    theirs = AutoTokenizer.from_pretrained(base).apply_chat_template(
        parsed, tools=[TOOL], add_generation_prompt=True, return_dict=False
    )
    assert Renderer(base).prompt_ids(messages, tools=[TOOL]) == theirs


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% for part in m.content %}{% endfor %}{% endfor %}",
        "{% for m in messages %}{% for part in m['content'] | reverse %}{% endfor %}{% endfor %}",
        "{% for m in messages %}{% set content = m.content %}{% for p in content[1:] %}{% endfor %}"
        "{% endfor %}",
        "{% macro m(c) %}{% for p in c %}{% endfor %}{% endmacro %}{{ m(messages[0].content) }}",
    ],
)
def test_a_template_that_wants_content_as_parts_is_refused(
    tiny_base: Path, tmp_path: Path, template: str
) -> None:
    with pytest.raises(AdaptdError, match="content as parts"):
        Renderer(a_base(tiny_base, tmp_path, template))


def test_a_base_without_template_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to(tiny_base / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text("{}")

    with pytest.raises(AdaptdError, match="no chat template"):
        Renderer(tmp_path)


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def a_base(tiny_base: Path, folder: Path, template: str) -> Path:
    """The tiny base with another template."""
    for file in tiny_base.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def _with_parsed_arguments(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    function = {"arguments": {"id": 7}, "name": "track"}  # the order vLLM gives
    return message | {
        "content": "",
        "tool_calls": [{"id": "c1", "function": function, "type": "function"}],
    }
