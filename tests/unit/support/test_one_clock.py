"""No test names a date and reads the machine's clock too, and the rule that says so finds those."""

import ast

import pytest

from tests.support.broker import ROOT
from tests.support.clock_rule import Sources, canonical, read_modules

WORLD = """
from datetime import UTC, datetime
from daemon.sinks import Sink
NOW = datetime(2026, 11, 22, tzinfo=UTC)
class World:
    def __init__(self, at=NOW):
        self.at = at
"""
PRODUCT = """
from datetime import UTC, datetime
def utc_now():
    return datetime.now(UTC)
class Sink:
    def __init__(self, *, clock: Callable[[], datetime] = utc_now):
        self.clock = clock
class Backups:
    def start(self):
        return datetime.now(UTC)
"""
IMPORTS = """
from datetime import UTC, datetime
from functools import partial
import pytest, time
from daemon.sinks import Backups, Sink
from tests.world import NOW, World
@pytest.fixture
def world():
    return World()
"""


def mixed(test: str) -> list[str]:
    tests = {"tests.world": WORLD, "tests.unit.test_x": IMPORTS + test}
    return list(
        Sources(
            {name: canonical(ast.parse(text)) for name, text in tests.items()},
            {"daemon.sinks": ast.parse(PRODUCT)},
        ).mixed()
    )


def test_no_test_mixes_a_fixed_date_with_the_machines_clock() -> None:
    """Hand a support.clock.Clock to what reads it, or take the dates from the machine's clock."""
    words = ("clock", "datetime", "time.time")
    folders = read_modules(ROOT, "daemon", "consumers", "serving", mentioning=words)
    product = {f"adaptd.{name}": tree for name, tree in folders.items()}
    assert list(Sources(read_modules(ROOT, "tests"), product).mixed()) == []


@pytest.mark.parametrize(
    "test",
    [
        "def test_x():\n    assert datetime.now(UTC) > NOW",
        "def test_x():\n    assert time.time() > datetime(2026, 1, 1).timestamp()",
        "def test_x():\n    assert str(datetime.now(UTC)) > '2026-01-01T00:00:00Z'",
        "def test_x(world):\n    world.add(datetime.now(UTC))",
        "def test_x(world):\n    Sink()",
        "def test_x(world):\n    Sink.load(1)",
        "SINK = partial(Sink, 1)\ndef test_x(world):\n    SINK()",
        "def test_x(world):\n    Backups(clock).start()",
        "def later():\n    return datetime.now(UTC)\ndef test_x():\n    later() > NOW",
        "from time import time\ndef test_x():\n    assert time() > NOW.timestamp()",
        "from time import time as now\ndef test_x():\n    assert now() > NOW.timestamp()",
        "import time as t\ndef test_x():\n    assert t.time() > NOW.timestamp()",
        "from tests import world as w\ndef test_x():\n    assert time.time() > w.NOW.timestamp()",
        "import tests.world\ndef test_x():\n    assert time.time() > tests.world.NOW.timestamp()",
        "import tests.world as w\ndef test_x():\n    assert time.time() > w.NOW.timestamp()",
    ],
)
def test_a_mixture_is_found(test: str) -> None:
    assert any("test_x.test_x: a fixed date at tests." in found for found in mixed(test))


@pytest.mark.parametrize(
    "test",
    [
        "def test_x(world):\n    Sink(clock=Clock(NOW))",
        "SINK = partial(Sink, clock=lambda: NOW)\ndef test_x(world):\n    SINK()",
        "def test_x():\n    Sink()\ndef test_y():\n    assert NOW",
        "def test_x():\n    assert Backups().start({'time': NOW}) < datetime.now(UTC)",
        "def test_x(world):\n    Sink = object\n    World(at=NOW)",
    ],
)
def test_one_clock_a_test_is_none(test: str) -> None:
    assert mixed(test) == []
