"""Commands run in-process, as an operator on the daemon's machine would run them."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from typer.testing import CliRunner

from adaptd.daemon.cli import app


class Ran(NamedTuple):
    """A command's exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


RunCommand = Callable[..., Ran]


def run_command(*words: str) -> Ran:
    done = CliRunner().invoke(app, list(words))
    return Ran(done.exit_code, done.stdout, done.stderr)
