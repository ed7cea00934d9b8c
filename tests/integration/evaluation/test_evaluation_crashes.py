"""An evaluation killed before or after any write: the same end, once."""

from pathlib import Path

import pytest

from adaptd.daemon.domain.states import AdapterState, RunState
from tests.support.evaluation_world import EvaluationWorld
from tests.support.rollout_world import CrashError, CrashingDatabase
from tests.support.tiny_model import make_tiny_base


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


class Points:
    def __init__(self, end_at: int) -> None:
        self.left = end_at

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise CrashError


async def evaluated(folder: Path, base_dir: Path, *, end_at: int, right: float) -> bool:
    """Take one run to its end, killed once at a point. False where it ended before the point."""
    database = CrashingDatabase.open(":memory:")
    world = EvaluationWorld(database, folder, base_dir, in_flight=40)
    run = await world.trained(right=right, snapshot=await world.snapshot(fresh=40, golden=40))
    database.point = points = Points(end_at)
    try:
        await world.service().tick()
    except CrashError:
        await world.service().tick()
    better = right > 0
    assert await world.state(run) == (
        (RunState.ACCEPTED, AdapterState.CANDIDATE)
        if better
        else (RunState.INCONCLUSIVE, AdapterState.RETIRED)
    )
    assert (await world.evaluation(run)).k == 1
    database.close()
    return points.left <= 0


@pytest.mark.parametrize(("right", "step"), [(0.9, 7), (0.0, 3)])
async def test_a_crash_at_any_write_changes_nothing_in_the_end(
    tmp_path: Path, tiny_dir: Path, right: float, step: int
) -> None:
    end_at = 1
    while await evaluated(tmp_path / str(end_at), tiny_dir, end_at=end_at, right=right):
        end_at += step

    assert end_at > 20  # around every write there were points
