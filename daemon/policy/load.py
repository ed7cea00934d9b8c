"""From a file to a policy, or to every problem in it at once as `file:line: what. what to do.`"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from daemon.domain.errors import PolicyError
from daemon.domain.texts import is_encodable
from daemon.policy.document import Document, read_document
from daemon.policy.explain import explain, is_real
from daemon.policy.files import Unreadable, read_regular, resolved_inside
from daemon.policy.golden import read_golden
from daemon.policy.model import Policy

_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True)
class Limits:
    """What the settings allow. None: unknown, not checked."""

    bases: frozenset[str] | None = None
    max_rank: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A file as read. `policy` is None where there are problems."""

    path: Path
    policy: Policy | None
    text: str
    problems: tuple[PolicyError, ...] = ()

    @property
    def sha256(self) -> str:
        return text_sha256(self.text)


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def load_policy(path: Path, *, folder: Path, limits: Limits = Limits()) -> Loaded:
    """Read and check a policy file of the policy folder, its golden file included. Never raises."""
    if not is_encodable(str(path)):  # it could be neither stored nor told
        problem = PolicyError(f"{path}:1", "its name or folder is not UTF-8", "Rename it")
        return Loaded(path, None, "", (problem,))
    try:
        content = read_regular(resolved_inside(folder, path), limit_bytes=_LIMIT_BYTES)
        text = content.decode()
    except Unreadable as error:
        return Loaded(path, None, "", (PolicyError(f"{path}:1", *error.args),))
    except UnicodeDecodeError:
        problem = PolicyError(f"{path}:1", "it is not UTF-8", "Save it as UTF-8")
        return Loaded(path, None, "", (problem,))
    policy, problems, document = parse_policy(text, name=str(path))
    if policy is not None:
        problems = [
            *_golden_problems(policy, document, path=path, folder=folder),
            *_limit_problems(policy, document, path=path, limits=limits),
        ]
    return Loaded(path, None if problems else policy, text, tuple(problems))


def parse_policy(text: str, *, name: str) -> tuple[Policy | None, list[PolicyError], Document]:
    """Check a policy's text alone: no other file is looked at. `name` opens every problem."""
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


def line_of(text: str, *path: str | int) -> int:
    """The line where a key of a policy's text stands."""
    return read_document(text).line_of(path)


def _golden_problems(
    policy: Policy, document: Document, *, path: Path, folder: Path
) -> Iterable[PolicyError]:
    name = policy.curate.holdout.golden
    if name is None:
        return
    try:
        golden = read_golden(folder, name)
    except Unreadable as error:
        line = document.line_of(("curate", "holdout", "golden"))
        what, remedy = error.args
        yield PolicyError(f"{path}:{line}", f"curate.holdout.golden: {what}", remedy)
    else:
        for problem in golden.problems:
            yield PolicyError(f"{golden.path}:{problem.line}", problem.what, problem.remedy)


def _limit_problems(
    policy: Policy, document: Document, *, path: Path, limits: Limits
) -> Iterable[PolicyError]:
    if limits.bases is not None and policy.base not in limits.bases:
        known = ", ".join(sorted(limits.bases)) or "none is set"
        yield PolicyError(
            f"{path}:{document.line_of(('base',))}",
            f"base is {policy.base}, which the settings do not know",
            f"Write a name from [bases] ({known}), or add it there",
        )
    if limits.max_rank is not None and policy.train.rank > limits.max_rank:
        yield PolicyError(
            f"{path}:{document.line_of(('train', 'rank'))}",
            f"train.rank is {policy.train.rank}, and vLLM is started for {limits.max_rank} at most",
            "Lower it, or raise upstream.max_lora_rank in the settings",
        )
