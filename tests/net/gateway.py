"""What a gateway leaves in the installation: its table, its spool, and the tokens it knows."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

from adaptd.daemon.wire.routes import RouteTable
from adaptd.daemon.wire.tokens import (
    TokenEntry,
    create_token,
    ensure_control_token,
    list_tokens,
    revoke_token,
)
from adaptd.serving.capture.spool import Spool
from adaptd.serving.gateway.app import Gateway
from adaptd.serving.gateway.settings import CONFIG_VARIABLE, GatewaySettings, load_settings
from tests.support.gateway_world import OpenAIServer, said, serve

# Past on every day on which these tests may run.
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
_QUESTIONS = ("My card is gone", "stream: where is my parcel", "invalid", "tools", "Adios")


def gateway_file_of(home: Path) -> dict[str, str]:
    """The environment of a gateway of this home."""
    return {CONFIG_VARIABLE: str(home / "gateway.json")}


def alone(settings: GatewaySettings, **changes: Any) -> GatewaySettings:
    """Settings of a gateway without a broker: what it captures stays in its spool."""
    return msgspec.structs.replace(settings, kafka_bootstrap=None, **changes)


def leave_tokens(home: Path) -> list[dict[str, Any]]:
    """Tokens of every kind, in clear, each with whom it is of; None where of nobody any more."""
    path = home / "tokens.json"
    control = ensure_control_token(home / "control.token", path)
    chat = ("chat", "feedback")
    made = {
        "shop": {"scopes": chat, "sources": ("user", "agent"), "models": ("support",)},
        "desk": {"scopes": ("events", "read"), "sources": ("system",)},
        "past": {"scopes": chat, "expires_at": LONG_AGO},
        "gone": {"scopes": chat},
    }
    tokens = {"operator": control}
    for tenant, given in made.items():
        tokens[tenant], entry = create_token(path, tenant=tenant, **given)
        if tenant == "gone":
            revoke_token(path, entry.id)
    valid = {entry.tenant: _caller(entry) for entry in list_tokens(path) if not entry.expires_at}
    return [
        {"tenant": tenant, "token": token, "caller": valid.get(tenant)}
        for tenant, token in tokens.items()
    ]


def _caller(entry: TokenEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "tenant": entry.tenant,
        "scopes": sorted(entry.scopes),
        "sources": sorted(entry.sources),
        "models": entry.models,
    }


async def leave_traffic(home: Path, table: RouteTable, *, control: str, token: str) -> None:
    """A table that a gateway saved, and answers that it captured and has not sent."""
    settings = alone(load_settings(gateway_file_of(home)))
    server = OpenAIServer(dict(table.paths))
    async with serve(Gateway(server, settings)) as url:
        async with httpx.AsyncClient(base_url=url, headers=_bearer(control)) as http:
            answer = await http.put("/adaptd/routes", content=msgspec.json.encode(table))
            assert answer.status_code == 200, answer.text
        async with httpx.AsyncClient(base_url=url, headers=_bearer(token)) as http:
            for number, words in enumerate(_QUESTIONS):
                await http.post("/v1/chat/completions", json=_asked(number, words))
    spool = Spool(settings.spool_dir, segment_bytes=settings.segment_bytes)
    sent = spool.read(1)
    assert sent is not None
    spool.acknowledge(sent)
    spool.close()


def _asked(number: int, words: str) -> dict[str, Any]:
    return {
        "model": "support",
        "messages": said(words),
        "stream": words.startswith(("stream", "tools")),
        "user": f"user-{number}",
        "temperature": 0.5,
        "metadata": {"conversation": f"talk-{number}", "shift": "late"},
    }


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def waiting_lines(spool_dir: Path) -> list[bytes]:
    """Every line that was not acknowledged, oldest first."""
    spool = Spool(spool_dir, segment_bytes=1 << 20)
    lines: list[bytes] = []
    try:
        while (batch := spool.read(2)) is not None:
            lines += batch.lines
            spool.acknowledge(batch)
    finally:
        spool.close()
    return lines
