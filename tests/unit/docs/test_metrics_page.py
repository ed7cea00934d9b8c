"""docs/metrics.md and the code say the same, both ways."""

import re
from pathlib import Path

from adaptd.daemon.web.metrics import METRICS
from adaptd.daemon.wire.routes import GatewayState
from adaptd.serving.gateway.metrics import GatewayMetrics

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(adaptd_\w+)` \| (.+?) \| (.+) \|$", re.MULTILINE)
NAME = re.compile(r"adaptd_\w+")
TYPE = re.compile(r"^# HELP (adaptd_\w+) (.+)$", re.MULTILINE)

Rows = dict[str, tuple[tuple[str, ...], str]]


def documented() -> tuple[Rows, Rows]:
    """The daemon's table and the gateway's."""
    daemon, gateway = PAGE.read_text().split("## The gateway's own")
    return _rows(daemon), _rows(gateway)


def _rows(text: str) -> Rows:
    return {row[1]: (tuple(re.findall(r"`(\w+)`", row[2])), row[3]) for row in ROW.finditer(text)}


def gateway_metrics() -> dict[str, str]:
    """Every family a gateway has, and what its help says; `_created` twins left out."""
    state = GatewayState(gateway="g", epoch=1)
    text = GatewayMetrics().render(state, shipped=0, refused=0, publish_failures=0).decode()
    return {name: words for name, words in TYPE.findall(text) if not name.endswith("_created")}


def test_every_metric_of_the_daemon_is_documented_with_labels_and_meaning() -> None:
    assert documented()[0] == METRICS


def test_every_metric_of_a_gateway_is_documented_with_its_meaning() -> None:
    assert {name: row[1] for name, row in documented()[1].items()} == gateway_metrics()


def test_every_metric_the_page_names_exists() -> None:
    named = set(NAME.findall(PAGE.read_text()))
    assert named - set(METRICS) - set(gateway_metrics()) == set()
