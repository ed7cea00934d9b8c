"""A gateway's surroundings: a small OpenAI-like server behind it, a daemon's door for events."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import uvicorn

from adaptd.daemon.wire.events import Feedback, Interaction
from adaptd.daemon.wire.routes import GatewayState, Route, RouteTable
from adaptd.daemon.wire.tokens import create_token, ensure_control_token
from adaptd.serving.gateway.app import Gateway
from adaptd.serving.gateway.asgi import App, Receive, Scope, Send
from adaptd.serving.gateway.settings import GatewaySettings
from tests.support.waiting import until

BASE = "tiny-base"
V1, V2 = "support@v1-11111111", "support@v2-22222222"


@contextlib.asynccontextmanager
async def serve(app: App, port: int = 0) -> AsyncIterator[str]:
    """Serve the app on a real uvicorn in this loop; yields its URL."""
    # Where the protocol is named, asyncio turns off Nagle, which otherwise costs 40 ms a request.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        config = uvicorn.Config(
            app, log_level="warning", lifespan="on", timeout_graceful_shutdown=2
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
            if task.done():
                task.result()
                raise RuntimeError("the server ended before it started")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


async def read_all(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def respond(send: Send, status: int, body: bytes, content_type: str) -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-served-by", V1.encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Seen:
    """A request as the server behind the gateway got it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class OpenAIServer:
    """Answers like vLLM: versions by name, ids from X-Request-Id, errors that name the version.

    The last user message says how: `slow` streams until the client leaves, `wait` answers when it
    has left, `raise`, `invalid`, `break` (an error in mid-stream), `tools`. `split` cuts streams
    into sends of so many bytes.
    """

    loaded: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    split: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        content = await read_all(receive)
        body = json.loads(content) if content else {}
        self.seen.append(Seen(scope["path"], headers, body))
        match scope["path"]:
            case "/v1/chat/completions" | "/v1/completions":
                await self._answer(scope["path"], headers, body, receive, send)
            case "/v1/load_lora_adapter":
                self.loaded[body["lora_name"]] = body["lora_path"]
                await respond(send, 200, b"Success", "text/plain")
            case _:
                await respond(send, 200, b'{"upstream": true}', "application/json")

    async def _answer(
        self, path: str, headers: dict[str, str], body: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        model, chat = body["model"], "chat" in path
        if model != BASE and model not in self.loaded:
            await self._error(send, 404, f"The model `{model}` does not exist.")
            return
        said = body["messages"][-1]["content"] if chat else body["prompt"]
        common = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{headers['x-request-id']}",
            "object": "chat.completion" if chat else "text_completion",
            "created": 1,
            "model": model,
        }
        if said == "raise":
            raise RuntimeError(f"{model} is broken")
        if said == "invalid":
            await self._error(send, 400, f"{model} (base {BASE}, /a/{model}/x) takes 5 tokens")
        elif body.get("stream"):
            await self._stream(common, said, body, receive, send)
        elif said == "wait":
            await self._wait_for_disconnect(receive)
        else:
            text = {"text": f"echo {said}"}
            message = {"role": "assistant", "content": f"echo {said}", "tool_calls": []}
            choice = {"index": 0, "finish_reason": "stop", "logprobs": None}
            choice |= {"message": message} if chat else text
            answer = common | {"choices": [choice], "usage": _usage()}
            await respond(send, 200, json.dumps(answer).encode(), "application/json")

    async def _error(self, send: Send, status: int, message: str) -> None:
        error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
        await respond(send, status, json.dumps({"error": error}).encode(), "application/json")

    async def _stream(
        self, common: dict[str, Any], said: str, body: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        leaving = asyncio.create_task(self._wait_for_disconnect(receive))
        try:
            for chunk in _chunks(common, said, body):
                await self._send_event(send, chunk)
                if said == "slow":
                    await asyncio.sleep(0.02)
                if leaving.done():
                    return
            await self._send_event(send, "[DONE]")
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()

    async def _send_event(self, send: Send, data: Any) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        event = f"data: {text}\n\n".encode()
        size = self.split or len(event)
        for start in range(0, len(event), size):
            part = event[start : start + size]
            await send({"type": "http.response.body", "body": part, "more_body": True})

    async def _wait_for_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.aborted.append(self.seen[-1].headers["x-request-id"])


def _usage() -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def _chunks(common: dict[str, Any], said: str, body: dict[str, Any]) -> list[Any]:
    chat = "messages" in body
    words = ["echo", *said.split()] * (500 if said == "slow" else 1)
    pieces = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in pieces]
    if said == "tools":
        deltas = _tool_deltas()
    if not chat:
        deltas = [{"text": piece} for piece in pieces]
    choices = [{"index": 0, "delta": delta} if chat else {"index": 0} | delta for delta in deltas]
    choices[-1]["finish_reason"] = "tool_calls" if said == "tools" else "stop"
    chunks: list[Any] = [common | {"choices": [choice]} for choice in choices]
    if said == "break":
        chunks[-1] = {"error": {"message": f"{common['model']} broke", "code": 500}}
    elif (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(common | {"choices": [], "usage": _usage()})
    return chunks


def _tool_deltas() -> list[dict[str, Any]]:
    function = {"name": "look_up", "arguments": ""}
    return [
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, "id": "t1", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"card"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ': "7"}'}}]},
    ]


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


@dataclass
class EventsDoor:
    """The daemon's POST /v1/events: keeps what it accepts. `status` is what it answers.

    `bury_if` says why an event becomes a dead letter, None where it does not.
    """

    status: int = 200
    refuse_if: Callable[[bytes], bool] = lambda _: False
    bury_if: Callable[[bytes], str | None] = lambda _: None
    interactions: list[Interaction] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers = dict(scope["headers"])
        body = await read_all(receive)
        status = 413 if self.refuse_if(body) else self.status
        results: list[dict[str, str]] = []
        if status == 200:
            self.tokens.add(headers[b"authorization"].decode().removeprefix("Bearer "))
            results = [self._take(line) for line in body.splitlines()]
        await respond(send, status, json.dumps({"results": results}).encode(), "application/json")

    def _take(self, line: bytes) -> dict[str, str]:
        if reason := self.bury_if(line):
            return {"result": "dead_letter", "reason": reason}
        match msgspec.json.decode(line)["schema"]:
            case "adaptd.interaction/1":
                self.interactions.append(msgspec.json.decode(line, type=Interaction))
            case "adaptd.feedback/1":
                self.feedback.append(msgspec.json.decode(line, type=Feedback))
        return {"result": "stored"}


@dataclass
class Place:
    """A gateway's files, and its tokens: one of a shop, one of another tenant, and control."""

    home: Path
    token: str
    other_token: str
    control: str

    @classmethod
    def make(cls, home: Path) -> "Place":
        tokens = home / "tokens.json"
        token, _ = create_token(
            tokens, tenant="shop", scopes=("chat", "feedback"), sources=("user", "agent")
        )
        other, _ = create_token(tokens, tenant="other", scopes=("chat", "feedback"))
        return cls(home, token, other, ensure_control_token(home / "control.token", tokens))

    def settings(self, **changes: Any) -> GatewaySettings:
        files = {
            "tokens_path": self.home / "tokens.json",
            "control_token_path": self.home / "control.token",
            "secret_path": self.home / "secret.key",
            "table_path": self.home / "table.json",
            "spool_dir": self.home / "spool",
        }
        return GatewaySettings(**({"gateway": "g1", "feedback_limit_s": 2} | files | changes))


@dataclass
class Site:
    """A running gateway and what is around it."""

    url: str
    server: OpenAIServer
    door: EventsDoor
    place: Place
    settings: GatewaySettings

    def client(self, token: str | None = None) -> openai.AsyncOpenAI:
        """The official client. Use as a context manager."""
        key = token or self.place.token
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def http(self, token: str | None = None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token or self.place.token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers)

    async def publish(
        self, *, epoch: int = 1, lease_s: float = 60, base: str = BASE, **route: Any
    ) -> GatewayState:
        """Put a table with the one alias `support` in force."""
        routes = {"support": Route(alias="support", **route)}
        table = RouteTable(epoch=epoch, base=base, lease_s=lease_s, routes=routes)
        async with self.http(self.place.control) as http:
            body = msgspec.json.encode(table)
            answer = await http.put("/adaptd/routes", content=body)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=GatewayState)


@contextlib.asynccontextmanager
async def site(home: Path, **changes: Any) -> AsyncIterator[Site]:
    """A gateway over an OpenAI-like server, its events going to an HTTP door."""
    door, server, place = EventsDoor(), OpenAIServer({V1: "/a/v1", V2: "/a/v2"}), Place.make(home)
    async with serve(door) as door_url:
        settings = place.settings(**({"events_url": f"{door_url}/v1/events"} | changes))
        async with serve(Gateway(server, settings)) as url:
            yield Site(url, server, door, place, settings)


async def captured(here: Site, count: int = 1) -> list[Interaction]:
    """Wait for so many interactions and make sure that no more came."""
    await until(lambda: len(here.door.interactions) >= count, within_s=10)
    assert len(here.door.interactions) == count
    return here.door.interactions


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]
