"""One definition of negative feedback: Python's, and the counts of the store."""

from datetime import UTC, datetime
from typing import Any

import pytest

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from adaptd.daemon.wire.feedback import is_negative
from tests.support.event_samples import a_correction, a_rating, an_interaction
from tests.support.ingesting import Ingesting

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
START = datetime(1970, 1, 1, tzinfo=UTC)
SCALE = [-1, 1]


@pytest.mark.parametrize(
    ("kind", "value", "fields"),
    [
        ("rating", -1.0, {}),
        ("rating", 1.0, {}),
        ("rating", 0.0, {"scale": SCALE}),
        ("rating", -0.25, {"scale": SCALE}),
        ("rating", 0.5, {"scale": SCALE}),
        ("correction", None, {}),
    ],
)
async def test_the_store_counts_what_python_calls_negative(
    kind: str, value: float | None, fields: dict[str, Any]
) -> None:
    database = Database.open(":memory:")
    events = Ingesting(database, NOON)
    asked = an_interaction()
    if value is None:
        said = a_correction(asked["id"], **fields)
    else:
        said = a_rating(asked["id"], value, **fields)
    await events.add(asked, said, at=NOON)

    counted = await TriggerStore(database).count_judged(asked["model"], since=START)

    database.close()
    assert (counted.total, counted.negative) == (1, int(is_negative(kind, value)))


@pytest.mark.parametrize("kind", ["label", "metric", "comment", "preference"])
def test_other_kinds_are_never_negative(kind: str) -> None:
    assert not is_negative(kind, -1.0)
