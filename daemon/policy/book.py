"""Policy versions and those in force, in memory. PolicyService fills them in.

It stands alone because every stage reads it, and only the watcher of files writes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from adaptd.daemon.domain.policies import StoredPolicy
from adaptd.daemon.policy.load import line_of, parse_policy
from adaptd.daemon.policy.model import Policy
from adaptd.daemon.wire.errors import PolicyError, RefusedError


@dataclass(frozen=True)
class PolicyVersion:
    """One checked version of one alias's policy."""

    model: str
    version: int
    policy: Policy
    sha256: str
    path: str
    yaml: str
    loaded_at: datetime
    applied_at: datetime

    @classmethod
    def of(cls, stored: StoredPolicy, policy: Policy) -> Self:
        return cls(
            stored.model,
            stored.version,
            policy,
            stored.sha256,
            stored.path,
            stored.yaml,
            stored.loaded_at,
            stored.applied_at,
        )

    def where(self, *path: str | int) -> str:
        """Return `file:line` of one of its keys."""
        return f"{self.path}:{line_of(self.yaml, *path)}"


class PolicyBook:
    """Policy versions that every stage reads. Safe on the loop's thread only."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, int], PolicyVersion] = {}
        self._in_force: dict[str, PolicyVersion] = {}
        self._problems: tuple[PolicyError, ...] = ()
        self._failure: PolicyError | None = None

    def current(self, model: str) -> PolicyVersion | None:
        """Return an alias's version in force; None where it has no usable policy file."""
        return self._in_force.get(model)

    def version(self, model: str, number: int) -> PolicyVersion:
        """Return any version, in force or not, such as the one that a run began with.

        Raises:
            RefusedError: there is none, or this release cannot read it.
        """
        if (found := self._versions.get((model, number))) is not None:
            return found
        raise RefusedError(
            f"policy {model} version {number}",
            "this release cannot read it",
            "Start again under the version in force",
        )

    def all(self) -> list[PolicyVersion]:
        """Return the versions in force, in the order of their aliases."""
        return [self._in_force[model] for model in sorted(self._in_force)]

    def problems(self) -> list[PolicyError]:
        """Return the problems of the present files. The last good versions stay in force."""
        failure = self._failure
        return [*self._problems, *([failure] if failure not in (None, *self._problems) else [])]

    @property
    def failure(self) -> PolicyError | None:
        """Error of the last check of the folder or of a file; None where all were checked.

        Edits are not applied meanwhile, so the daemon is not ready.
        """
        return self._failure

    def remember(self, stored: StoredPolicy) -> PolicyVersion | None:
        """Take in a version of the store; None where this release cannot read its text."""
        policy, _, _ = parse_policy(stored.yaml, name=stored.path)
        if policy is None:
            return None
        version = PolicyVersion.of(stored, policy)
        self._versions[stored.model, stored.version] = version
        return version

    def settle(
        self,
        in_force: Mapping[str, PolicyVersion],
        problems: Sequence[PolicyError],
        *,
        failure: PolicyError | None = None,
    ) -> None:
        """Replace the versions in force, all aliases at once. `failure`: an unchecked file."""
        self._in_force = dict(in_force)
        self._problems = tuple(problems)
        self._failure = failure

    def fail(self, failure: PolicyError) -> None:
        """Keep the versions in force, and record why the folder could not be checked."""
        self._failure = failure
