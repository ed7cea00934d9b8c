"""Messages to token ids exactly as the served model sees them (D14).

The served chat template runs in jinja2's sandbox with the settings transformers gives it, on
messages treated as vLLM 0.32 treats them; `tokenizers` encodes the text. No torch, no transformers.
Equality with vLLM's `/tokenize` is tested against a running server.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from daemon.domain.errors import AdaptdError

Message = Mapping[str, Any]
_SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_TOOL_FIELDS = ("name", "description", "parameters", "strict", "defer_loading")
_TOOL_FIELDS_WHEN_SET = ("strict", "defer_loading")


class RenderError(AdaptdError):
    """Messages that cannot be rendered: the example is left out, with this reason."""


class Renderer:
    """One base's tokenizer and chat template. Cheap to keep, about 0.1 s to make."""

    def __init__(self, base: Path) -> None:
        """Read them.

        Raises:
            AdaptdError: there is no tokenizer.json or template, or the template takes content as
                parts, which this release does not render.
        """
        self._tokenizer = _tokenizer(base)
        config = json.loads((base / "tokenizer_config.json").read_text())
        self._special = {name: _token(config[name]) for name in _SPECIAL if config.get(name)}
        source = _template_source(base, config)
        environment = _environment()
        if _reads_parts(environment.parse(source)):
            raise AdaptdError(str(base), "its template takes content parts", "Use a text template")
        self._knows_developer = "'developer'" in source or '"developer"' in source
        self._template = environment.from_string(source)
        self.stop_id = self._stop_id(base)

    def prompt_ids(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_args: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The ids of a conversation up to where the assistant's answer begins.

        Raises:
            RenderError: the template refuses it, or a message is not text.
        """
        values = {**self._special, "documents": None, "add_generation_prompt": True}
        values |= dict(template_args or {})
        values |= {"messages": self._prepared(messages), "tools": _prepared_tools(tools)}
        try:
            text = self._template.render(values)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise RenderError(
                "chat template", type(error).__name__, "Check the messages"
            ) from error
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def answer_ids(self, text: str) -> list[int]:
        """The ids of an answer as a model would write it: its text, then the stop token."""
        return [*self._tokenizer.encode(text, add_special_tokens=False).ids, self.stop_id]

    def _stop_id(self, base: Path) -> int:
        """The token that ends a turn: what the server stops on."""
        generation = base / "generation_config.json"
        found = json.loads(generation.read_text()) if generation.exists() else {}
        stop = found.get("eos_token_id")
        if stop is None:
            stop = self._tokenizer.token_to_id(self._special.get("eos_token", ""))
        first = stop[0] if isinstance(stop, list) else stop
        if first is None:
            raise AdaptdError(str(base), "no stop token is defined", "Set eos_token_id")
        return int(first)

    def _prepared(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as vLLM hands them to the template."""
        prepared = [_prepared_message(message) for message in messages]
        if self._knows_developer or all(m["role"] != "developer" for m in prepared):
            return prepared
        for message in prepared:
            if message["role"] == "developer":
                message["role"] = "system"
                message.pop("tools", None)
        return _one_system_message(prepared)


def _prepared_message(message: Message) -> dict[str, Any]:
    role = str(message["role"])
    prepared: dict[str, Any] = {"role": role, "content": _text_of(message.get("content"))}
    if role == "assistant":
        if message.get("tool_calls"):
            prepared["tool_calls"] = [_prepared_call(call) for call in message["tool_calls"]]
        reasoning = message.get("reasoning")
        if reasoning is not None:
            prepared |= {"reasoning": reasoning, "reasoning_content": reasoning}
    elif role == "tool" and "tool_call_id" in message:
        prepared["tool_call_id"] = message["tool_call_id"]
    elif role == "developer":
        prepared["tools"] = message.get("tools")
    if isinstance(message.get("name"), str):
        prepared["name"] = message["name"]
    return prepared


def _text_of(content: Any) -> str:
    """Text parts joined by newlines; nothing becomes the empty text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(_part(part) for part in content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") in ("text", "input_text", "refusal"):
        return str(part.get("text") or part.get("refusal") or "")
    raise RenderError("message", "a part of its content is not text", "Leave it out")


def _prepared_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object; what is not one becomes empty."""
    prepared = copy.deepcopy(dict(call))
    function = prepared.get("function")
    if not isinstance(function, dict):
        raise RenderError("message", "a tool call has no function", "Leave it out")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            arguments = None
    function["arguments"] = arguments if isinstance(arguments, dict) else {}
    return prepared


def _prepared_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Tools with the fields and the order vLLM gives them."""
    if tools is None:
        return None
    return [{"type": "function", "function": _tool_function(tool["function"])} for tool in tools]


def _tool_function(function: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: function.get(name) for name in _TOOL_FIELDS}
    return {k: v for k, v in fields.items() if v is not None or k not in _TOOL_FIELDS_WHEN_SET}


def _one_system_message(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All system messages as one in front, where one stands elsewhere."""
    system = [message for message in messages if message["role"] == "system"]
    if not system or (len(system) == 1 and messages[0]["role"] == "system"):
        return messages
    text = "\n\n".join(message["content"] for message in system if message["content"])
    others = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": text}, *others]


def _tokenizer(base: Path) -> Tokenizer:
    path = base / "tokenizer.json"
    if not path.exists():
        raise AdaptdError(str(base), "it has no tokenizer.json", "Use a base with a fast tokenizer")
    return Tokenizer.from_file(str(path))


def _template_source(base: Path, config: Mapping[str, Any]) -> str:
    file = base / "chat_template.jinja"
    source = file.read_text() if file.exists() else config.get("chat_template")
    if not isinstance(source, str):
        raise AdaptdError(str(base), "it has no chat template", "Put chat_template.jinja beside it")
    return source


def _token(value: Any) -> str:
    return value if isinstance(value, str) else str(value["content"])


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers sets it up for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for trainers; rendering passes it through."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(  # jinja2's own filter escapes HTML
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)  # noqa: DTZ005 - the server's local day, as served


def _reads_parts(tree: jinja2.nodes.Template) -> bool:
    """True where the template loops over a message's content."""
    return any(_is_content(loop.iter) for loop in tree.find_all(jinja2.nodes.For))


def _is_content(node: jinja2.nodes.Node) -> bool:
    if isinstance(node, jinja2.nodes.Getattr):
        return node.attr == "content"
    if not isinstance(node, jinja2.nodes.Getitem):
        return False
    return isinstance(node.arg, jinja2.nodes.Const) and node.arg.value == "content"
