from pathlib import Path

from adaptd.daemon.wire.routes import GatewayState
from adaptd.serving.gateway.allowlist import CHAT_FIELDS, COMPLETION_FIELDS
from adaptd.serving.gateway.metrics import GatewayMetrics
from adaptd.serving.gateway.settings import GatewaySettings

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "gateway.md").read_text()


def test_every_setting_of_the_gateway_is_on_its_page() -> None:
    names = GatewaySettings.__struct_fields__
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_every_request_field_is_on_the_page() -> None:
    assert [
        name for name in sorted(CHAT_FIELDS | COMPLETION_FIELDS) if f"`{name}`" not in PAGE
    ] == []


def test_every_metric_of_the_gateway_is_on_its_page() -> None:
    state = GatewayState(gateway="g", epoch=1)
    text = GatewayMetrics().render(state, shipped=0, refused=0, publish_failures=0).decode()
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]

    assert names
    assert [name for name in names if f"`{name}" not in PAGE] == []
