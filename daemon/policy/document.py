"""YAML with the line of every value, so that each problem is shown at its line.

The reader makes plain values: no tags, no anchors, no duplicate keys; all problems at once.
"""

# ruamel has no types.
# pyright: reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from adaptd.daemon.wire.texts import encodable, is_encodable

Path = tuple[str | int, ...]
_TAG = "tag:yaml.org,2002:"
_SCALARS = ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")
_TRUE = ("true", "True", "TRUE")


@dataclass(frozen=True)
class PolicyProblem:
    """A problem at a line, and what to write instead."""

    line: int
    what: str
    remedy: str


@dataclass(frozen=True)
class Document:
    """Values of a file, and the line (from 1) of each or of its key."""

    data: Any
    lines: Mapping[Path, int]
    problems: list[PolicyProblem] = field(default_factory=list)

    def line_of(self, path: Path) -> int:
        """Return the line of a value, or of the nearest value around it."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_document(text: str) -> Document:
    """Read one YAML document. Never raises: unreadable text is a problem."""
    try:
        node = YAML(typ="safe", pure=True).compose(text)  # type: ignore[arg-type] - text is allowed
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = PolicyProblem(
            line, f"it is not YAML ({_describe_error(error)})", "Correct the syntax"
        )
        return Document(None, {}, [problem])
    except (YAMLError, RecursionError, ValueError) as error:
        problem = PolicyProblem(1, f"it is not YAML ({type(error).__name__})", "Correct the syntax")
        return Document(None, {}, [problem])
    if node is None:
        return _refuse_empty(1)
    reader = _Reader()
    try:
        data = reader.read_value(node, ())
    except RecursionError:
        problem = PolicyProblem(1, "it is nested too deeply", "Write it flatter")
        return Document(None, {}, [problem])
    if data is None and not reader.problems:  # the whole file says null
        return _refuse_empty(node.start_mark.line + 1)
    return Document(data, reader.lines, reader.problems)


def _refuse_empty(line: int) -> Document:
    return Document(None, {}, [PolicyProblem(line, "it is empty", "Write a policy, or remove it")])


def _describe_error(error: MarkedYAMLError) -> str:
    return " ".join(filter(None, (error.context, error.problem))) or "syntax error"


class _Reader:
    """Walks the nodes of one document."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[PolicyProblem] = []
        self._seen: set[int] = set()

    def read_value(self, node: Node, path: Path) -> Any:
        # A key has set its own line before: its value may begin lines below.
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._seen:  # anchors could make a small file huge
            self._note_problem(node, "an anchor is used again", "Write the value out a second time")
            return None
        self._seen.add(id(node))
        tag = str(node.tag).removeprefix(_TAG)
        if isinstance(node, MappingNode) and tag == "map":
            return dict(self._read_items(node, path))
        if isinstance(node, SequenceNode) and tag == "seq":
            return [self.read_value(item, (*path, n)) for n, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and tag in _SCALARS:
            return self._read_scalar(node, tag)
        self._note_problem(node, f"the tag {node.tag} is not known here", "Remove the tag")
        return None

    def _read_items(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Any]]:
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, ScalarNode):
                self._note_problem(key_node, "a key is not a word", "Write one word, then a colon")
            elif not is_encodable(key):
                self._refuse_surrogate(key_node, f"the key {encodable(key)}")
            elif key in first_lines:
                self._note_problem(
                    key_node,
                    f"{key} is given again, first in line {first_lines[key]}",
                    "Keep one of them",
                )
            else:
                first_lines[key] = line
                self.lines[(*path, key)] = line
                yield key, self.read_value(value_node, (*path, key))

    def _read_scalar(self, node: ScalarNode, tag: str) -> Any:
        text: str = node.value
        if not is_encodable(text):
            self._refuse_surrogate(node, "a text")
            return encodable(text)
        try:
            if tag == "int":
                return int(text.replace("_", ""), 0)  # 0: hexadecimal and octal as well
            if tag == "float":
                return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self._note_problem(node, "a number cannot be read", "Write a plain number")
            return None
        return {"null": None, "bool": text in _TRUE}.get(tag, text)

    def _refuse_surrogate(self, node: Node, which: str) -> None:
        remedy = "Write the letter itself, or its whole code as in \\U0001F600"
        self._note_problem(node, f"{which} holds half a letter (a lone surrogate)", remedy)

    def _note_problem(self, node: Node, what: str, remedy: str) -> None:
        self.problems.append(PolicyProblem(node.start_mark.line + 1, what, remedy))
