"""Rendering of messages to token ids exactly as the served model sees them (D14).

The served chat template runs in jinja2's sandbox with transformers' settings; `tokenizers` encodes
the text. No torch, no transformers. A test compares with `/tokenize` of a running vLLM.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from adaptd.daemon.dataset.messages import (
    Message,
    RenderError,
    prepare_args,
    prepare_messages,
    prepare_tools,
)
from adaptd.daemon.domain.bases import chat_template
from adaptd.daemon.wire.errors import AdaptdError
from adaptd.daemon.wire.files import read_regular

__all__ = ["RenderError", "Renderer"]

_SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_MARK = "the end of this text is the end of the turn"


class Renderer:
    """One base's tokenizer and chat template. Cheap to keep, about 0.1 s to make."""

    def __init__(self, base: Path) -> None:
        """Read both.

        Raises:
            AdaptdError: the base has no tokenizer.json or template, or the template takes content
                as parts, which this release does not render.
        """
        self._base = base
        self._load_tokenizer = _load_tokenizer(base)
        config = _read_json(base / "tokenizer_config.json")
        self._special = {name: _token_text(config[name]) for name in _SPECIAL if config.get(name)}
        source = chat_template(base)
        environment = _make_environment()
        if _reads_parts(environment.parse(source)):
            problem = "its chat template takes content as parts"
            raise AdaptdError(str(base), problem, "Use a base whose template takes text")
        self._knows_developer = "'developer'" in source or '"developer"' in source
        self._template = environment.from_string(source)
        added = self._load_tokenizer.get_added_tokens_decoder()
        # Ids that text of a message must not produce.
        self._reserved = frozenset(number for number, token in added.items() if token.special)
        self.stop_id = self._find_stop_id()

    def prompt_ids(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_args: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        at: datetime | None = None,
    ) -> list[int]:
        """Return the ids of a conversation up to the beginning of the assistant's answer.

        `at` is the time of the question, now by default: templates may print the date.

        Raises:
            RenderError: the template refuses the messages, or a message is not text.
        """
        values = prepare_args(template_args, reasoning_effort=reasoning_effort)
        values = {"documents": None, "tools": prepare_tools(tools)} | values
        values |= {
            "messages": prepare_messages(messages, knows_developer=self._knows_developer),
            "add_generation_prompt": True,
        }
        return self._encode_text(self._render_text(values, at or datetime.now(UTC)))

    def answer_ids(self, text: str) -> list[int]:
        """Return the ids of an answer as a model would write it: its text, then the stop token.

        Raises:
            RenderError: the text holds a special token, which could end the turn or open another.
        """
        ids = self._encode_text(text)
        if not self._reserved.isdisjoint(ids) or self.stop_id in ids:
            raise RenderError("answer", "it holds a special token", "Leave it out")
        return [*ids, self.stop_id]

    def _encode_text(self, text: str) -> list[int]:
        return self._load_tokenizer.encode(text, add_special_tokens=False).ids

    def _render_text(self, values: Mapping[str, Any], at: datetime) -> str:
        clock = {"strftime_now": partial(_format_time, at)}
        try:
            return self._template.render({**self._special, **clock, **values})
        except Exception as error:  # a template may fail in any way
            problem = f"the chat template refuses it ({type(error).__name__})"
            raise RenderError("message", problem, "Leave it out") from error

    def _find_stop_id(self) -> int:
        """Find the token that ends a turn: the first after an answer that the server stops on.

        Raises:
            AdaptdError: no such token is defined.
        """
        stops = self._list_stops()
        turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
        values = {"messages": turn, "add_generation_prompt": False, "tools": None}
        try:
            text = self._render_text({"documents": None} | values, datetime.now(UTC))
        except RenderError:
            text = ""
        after = self._encode_text(text.rpartition(_MARK)[2]) if _MARK in text else []
        found = next((number for number in [*after, *stops] if number in stops), None)
        if found is None:
            raise AdaptdError(str(self._base), "no stop token is defined", "Set eos_token_id")
        return found

    def _list_stops(self) -> list[int]:
        generation = _read_json(self._base / "generation_config.json").get("eos_token_id")
        listed = generation if isinstance(generation, list) else [generation]
        own = self._load_tokenizer.token_to_id(self._special.get("eos_token", ""))
        return [int(number) for number in [*listed, own] if number is not None]


def _load_tokenizer(base: Path) -> Tokenizer:
    path = base / "tokenizer.json"
    if not path.is_file():
        raise AdaptdError(str(base), "it has no tokenizer.json", "Use a base with a fast tokenizer")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(read_regular(path)) if path.exists() else {}
    except (OSError, ValueError) as error:
        problem = f"it cannot be read ({type(error).__name__})"
        raise AdaptdError(str(path), problem, "Give the directory of a model") from error


def _token_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value["content"])


def _make_environment() -> ImmutableSandboxedEnvironment:
    # Set up as transformers does for chat templates.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    return environment


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for trainers; rendering passes it through.

    It is a call block, like transformers', so that variables set inside stay inside.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_as_it_is")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _as_it_is(self, caller: Any) -> str:
        return caller()


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


def _format_time(at: datetime, layout: str) -> str:
    return at.astimezone().strftime(layout)  # the server's local day, as served


def _reads_parts(tree: jinja2.nodes.Template) -> bool:
    """Say whether vLLM might give the template content as parts: it loops over a content."""
    # Rather too often than not: content that vLLM hands over as parts must not be rendered as text.
    of_macros = {
        (id(loop), arg.name)
        for macro in tree.find_all(jinja2.nodes.Macro)
        for loop in macro.find_all(jinja2.nodes.For)
        for arg in macro.args
    }
    for loop in tree.find_all(jinja2.nodes.For):
        over = _strip_node(loop.iter)
        if _is_content(over) or (id(loop), getattr(over, "name", None)) in of_macros:
            return True
    return False


def _strip_node(node: Any) -> Any:
    """Strip a node of the filters, tests and slices around it."""
    while isinstance(node, jinja2.nodes.Filter | jinja2.nodes.Test) or (
        isinstance(node, jinja2.nodes.Getitem) and isinstance(node.arg, jinja2.nodes.Slice)
    ):
        node = node.node
    return node


def _is_content(node: Any) -> bool:
    if isinstance(node, jinja2.nodes.Name):
        return node.name == "content"
    if isinstance(node, jinja2.nodes.Getattr):
        return node.attr == "content"
    if not isinstance(node, jinja2.nodes.Getitem):
        return False
    return isinstance(node.arg, jinja2.nodes.Const) and node.arg.value == "content"
