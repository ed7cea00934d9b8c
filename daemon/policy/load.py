"""Loading of a policy file, or all its problems at once as `file:line: problem. remedy.`"""

# JSON of any kind.
# pyright: reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from adaptd.daemon.policy.document import Document, read_document
from adaptd.daemon.policy.explain import explain, is_real
from adaptd.daemon.policy.files import Unreadable, read_regular, resolved_inside
from adaptd.daemon.policy.golden import read_golden
from adaptd.daemon.policy.model import Policy
from adaptd.daemon.wire.errors import PolicyError
from adaptd.daemon.wire.files import shown_path
from adaptd.daemon.wire.texts import is_encodable

_LIMIT_BYTES = 256 * 1024  # a policy with every key has about 1 kB


@dataclass(frozen=True)
class Limits:
    """Limits of the settings. None: unknown, not checked."""

    bases: frozenset[str] | None = None
    max_rank: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A file as read. `policy` is None where there are problems.

    `error` ended the check itself: the file may be right, so it is tried again.
    """

    path: Path
    policy: Policy | None
    text: str
    problems: tuple[PolicyError, ...] = ()
    error: Exception | None = None

    @property
    def sha256(self) -> str:
        return text_sha256(self.text)


def text_sha256(text: str) -> str:
    """Return the hash that tells two texts of a policy apart."""
    return hashlib.sha256(text.encode()).hexdigest()


def load_policy(path: Path, *, folder: Path, limits: Limits = Limits()) -> Loaded:
    """Read and check a policy file of the policy folder, its golden file included. Never raises."""
    name = shown_path(path)
    try:
        text = _read_text(path, folder)
    except Unreadable as error:
        return Loaded(path, None, "", (PolicyError(f"{name}:1", *error.args),))
    policy, problems, document = parse_policy(text, name=name)
    if policy is not None:
        problems = [
            *_golden_problems(policy, document, name=name, folder=folder),
            *_limit_problems(policy, document, name=name, limits=limits),
        ]
    return Loaded(path, None if problems else policy, text, tuple(problems))


def parse_policy(text: str, *, name: str) -> tuple[Policy | None, list[PolicyError], Document]:
    """Check a policy's text alone, without other files. `name` opens every problem."""
    document = read_document(text)
    found = [(p.line, p.what, p.remedy) for p in document.problems]
    policy = None
    if document.data is not None:
        try:
            policy = Policy.model_validate(document.data)
        except ValidationError as error:
            details = [detail for detail in error.errors(include_url=False) if is_real(detail)]
            found += [(document.line_of(detail["loc"]), *explain(detail)) for detail in details]
    problems = [PolicyError(f"{name}:{line}", what, fix) for line, what, fix in sorted(found)]
    return None if problems else policy, problems, document


def named_base(path: Path, *, folder: Path) -> str | None:
    """Return the base that a policy file names, also in a wrong one. None where it names none."""
    try:
        data = read_document(_read_text(path, folder)).data
    except Unreadable:
        return None
    base = data.get("base") if isinstance(data, dict) else None
    return base if isinstance(base, str) else None


def line_of(text: str, *path: str | int) -> int:
    """Return the line of a key in a policy's text."""
    return read_document(text).line_of(path)


def _read_text(path: Path, folder: Path) -> str:
    """Read a file. Raises Unreadable where it cannot be read, or name or content is not UTF-8."""
    if not is_encodable(str(path)):  # neither the store nor a message could hold it
        raise Unreadable("its name or folder is not UTF-8", "Rename it")
    content = read_regular(resolved_inside(folder, path), limit_bytes=_LIMIT_BYTES)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Unreadable("it is not UTF-8", "Save it as UTF-8") from error


def _golden_problems(
    policy: Policy, document: Document, *, name: str, folder: Path
) -> Iterable[PolicyError]:
    # `name` is the policy file's; problems inside the golden file stand at its own lines.
    golden_name = policy.curate.holdout.golden
    if golden_name is None:
        return
    try:
        golden = read_golden(folder, golden_name)
    except Unreadable as error:
        line = document.line_of(("curate", "holdout", "golden"))
        what, remedy = error.args
        yield PolicyError(f"{name}:{line}", f"curate.holdout.golden: {what}", remedy)
    else:
        for problem in golden.problems:
            where = f"{shown_path(golden.path)}:{problem.line}"
            yield PolicyError(where, problem.what, problem.remedy)


def _limit_problems(
    policy: Policy, document: Document, *, name: str, limits: Limits
) -> Iterable[PolicyError]:
    if limits.bases is not None and policy.base not in limits.bases:
        known = ", ".join(sorted(limits.bases)) or "none is set"
        yield PolicyError(
            f"{name}:{document.line_of(('base',))}",
            f"base is {policy.base}, which the settings do not know",
            f"Write a name from [bases] ({known}), or add it there",
        )
    if limits.max_rank is not None and policy.train.rank > limits.max_rank:
        yield PolicyError(
            f"{name}:{document.line_of(('train', 'rank'))}",
            f"train.rank is {policy.train.rank}, and vLLM is started for {limits.max_rank} at most",
            "Lower it, or raise upstream.max_lora_rank in the settings",
        )
