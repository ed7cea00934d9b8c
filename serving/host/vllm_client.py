"""Load, unload, generate and score on one vLLM server over HTTP (the AdapterHost port)."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
import msgspec

from adaptd.daemon.domain.patience import Patience
from adaptd.daemon.domain.ports import HostInfo
from adaptd.daemon.wire.errors import HostError
from adaptd.daemon.wire.texts import NOT_DECODED

# A scoring call builds a [tokens, vocabulary] table of logits outside vLLM's memory profile; above
# a few thousand tokens it has killed engines. Eight sequences leave half of 16 seats to customers.
_TOKENS_PER_CALL = 2048
_SEQUENCES_PER_CALL = 8
_CALLS_AT_ONCE = 2
_CONNECT_LIMIT_S = 3.0
_LOOK_EVERY_S = 5.0  # at the work of a server that owes an answer
_LONGEST_CALL = 12  # times the limit: customers keep a server busy that lost our request
_NO_ADAPTER = "adaptd-asks-for-no-adapter"
_STARTED = re.compile(r"^process_start_time_seconds (\S+)$", re.MULTILINE)
_TOKENS = re.compile(r"^vllm:(?:prompt|generation)_tokens_total\{.*\} (\S+)$", re.MULTILINE)
_SLOTS = re.compile(r'^vllm:lora_requests_info\{.*?max_lora="(\d+)"', re.MULTILINE)

T = TypeVar("T", bound=Sequence[Any])


class _Card(msgspec.Struct, frozen=True):
    """One entry of /v1/models. An adapter's `root` is its path and its `parent` the base."""

    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class _StateFields(msgspec.Struct, frozen=True):
    """The one field that is read of the gateway's state."""

    dtype: str | None = None


class _Cards(msgspec.Struct, frozen=True):
    data: list[_Card]


class VllmHost:
    """One vLLM server, started by adaptd or by somebody else. The control token opens its routes.

    A call may take as long as the server counts tokens, of any request; it is given up once the
    server counts none for `limit_s`, or after twelve times that. Every method raises HostError with
    vLLM's own message, or that it did not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        control_token: str | None = None,
        limit_s: float = 300.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._limit_s = limit_s
        self._base: str | None = None
        self._seats = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {control_token}"} if control_token else {},
            timeout=httpx.Timeout(limit_s, connect=_CONNECT_LIMIT_S),
            transport=transport,
            trust_env=False,  # no proxy that the environment names
        )

    async def __aenter__(self) -> "VllmHost":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def describe(self) -> HostInfo:
        """Describe the server as it is. `instance` holds its start time: a restart changes it."""
        base = _find_base(await self._list_cards(), self._url)
        self._base = base.id
        metrics = (await self._send_request("GET", "/metrics")).text
        started = _STARTED.search(metrics)
        if started is None:
            problem = "its /metrics do not tell when it started"
            raise HostError(self._url, problem, "Serve process_start_time_seconds there")
        return HostInfo(
            instance=f"{self._url}#{float(started[1]):.2f}",
            base=base.id,
            max_model_len=base.max_model_len or 0,
            dtype=await self._ask_dtype(),
        )

    async def _ask_dtype(self) -> str | None:
        """Ask the gateway in the server's process for the number format; vLLM has no route for it.

        None where there is no such gateway, or one in another process.
        """
        try:
            answer = (await self._http.get("/adaptd/state")).raise_for_status()
            return msgspec.json.decode(answer.content, type=_StateFields).dtype
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            problem = f"its gateway answered {error.response.status_code} to the control token"
            raise HostError(self._url, problem, "Start it with this home's token") from error
        except httpx.HTTPError as error:
            problem = f"its gateway did not answer ({type(error).__name__})"
            raise HostError(self._url, problem, "See whether vLLM runs: adaptd doctor") from error
        except NOT_DECODED:
            return None

    async def slots(self) -> int | None:
        """Count the adapters it serves at once; None until an adapter has answered there."""
        metrics = (await self._send_request("GET", "/metrics")).text
        found = _SLOTS.search(metrics)
        return int(found[1]) if found else None

    async def check_lora(self) -> None:
        """Check that it can load adapters at run time.

        Raises:
            HostError: it cannot; the remedy is how to start it.
        """
        body = {"lora_name": _NO_ADAPTER, "lora_path": f"/{_NO_ADAPTER}"}
        try:
            await self._send_request("POST", "/v1/load_lora_adapter", body)
        except HostError as error:
            if "No adapter found" not in error.problem:
                remedy = "Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
                raise HostError(self._url, error.problem, remedy) from error

    async def load(self, name: str, path: Path) -> None:
        """Register an adapter version. Safe to repeat with the same name and path."""
        root = str(path.absolute())  # noqa: ASYNC240 text only: the disk is not asked
        if await self._is_loaded(name, root):
            return
        try:
            body = {"lora_name": name, "lora_path": root}
            await self._send_request("POST", "/v1/load_lora_adapter", body)
        except HostError:
            if not await self._is_loaded(name, root):  # else a call beside this one was faster
                raise

    async def unload(self, name: str) -> None:
        """Forget a version. Safe to repeat. vLLM keeps its memory until others need it."""
        try:
            await self._send_request("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        except HostError:
            if name in await self.loaded():
                raise

    async def loaded(self) -> frozenset[str]:
        return frozenset(card.id for card in await self._list_cards() if card.parent is not None)

    async def generate(
        self, model: str | None, prompts: Sequence[Sequence[int]], *, max_tokens: int
    ) -> list[str]:
        """Continue token-id prompts greedily, in order, without special tokens."""
        body = {"max_tokens": max_tokens, "temperature": 0.0, "skip_special_tokens": True}
        choices = await self._complete_all(model, prompts, body)
        return [choice["text"] for choice in choices]

    async def logprobs(
        self, model: str | None, sequences: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Score every token by its natural-log probability given those before; the first is 0.0.

        One token is generated with each and thrown away, so a sequence must be shorter than the
        longest the server takes.
        """
        body = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        choices = await self._complete_all(model, sequences, body)
        return [
            _pick_logprobs(ids, choice["prompt_logprobs"])
            for ids, choice in zip(sequences, choices, strict=True)
        ]

    async def tokenize(
        self, messages: Sequence[dict[str, Any]], *, tools: Sequence[dict[str, Any]] | None = None
    ) -> list[int]:
        """Tokenize a conversation as vLLM does, up to the start of the answer."""
        body: dict[str, Any] = {"model": await self._base_name(), "messages": list(messages)}
        if tools:
            body["tools"] = list(tools)
        return (await self._send_request("POST", "/tokenize", body)).json()["tokens"]

    async def _complete_all(
        self, model: str | None, prompts: Sequence[Sequence[int]], body: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Complete prompts in bounded calls, two at a time; one choice a prompt, in order."""
        name = model or await self._base_name()

        async def call(some: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
            whole = {"model": name, "prompt": [list(ids) for ids in some], **body}
            async with self._seats:
                answer = (await self._send_request("POST", "/v1/completions", whole)).json()
            return sorted(answer["choices"], key=lambda choice: choice["index"])

        try:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(call(some)) for some in _split_batches(prompts)]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed  # the others were cancelled for it
        return [choice for done in calls for choice in done.result()]

    async def _is_loaded(self, name: str, root: str) -> bool:
        found = next((card for card in await self._list_cards() if card.id == name), None)
        if found is not None and found.root != root:
            problem = f"{name} is loaded from {found.root}, not from {root}"
            raise HostError(self._url, problem, "A version's name is never used twice")
        return found is not None

    async def _list_cards(self) -> list[_Card]:
        answer = await self._send_request("GET", "/v1/models")
        return msgspec.json.decode(answer.content, type=_Cards).data

    async def _base_name(self) -> str:
        if self._base is None:
            self._base = _find_base(await self._list_cards(), self._url).id
        return self._base

    async def _send_request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> httpx.Response:
        try:
            answer = await self._wait_for_answer(method, path, body)
        except httpx.HTTPError as error:
            words = " ".join(filter(None, (type(error).__name__, str(error))))
            problem = f"{path} was not answered ({words})"
            raise HostError(self._url, problem, "See whether vLLM runs: adaptd doctor") from error
        if answer.is_error:
            said = f"{path} was answered {answer.status_code}: {_message_of(answer)}"
            raise HostError(self._url, said, "Its log has more: logs/vllm.log")
        return answer

    async def _wait_for_answer(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> httpx.Response:
        """Send one request and wait for its answer as long as the server works."""
        if method == "GET":  # the API server answers without the engine, at once
            return await self._http.get(path)
        no_limit = httpx.Timeout(None, connect=_CONNECT_LIMIT_S)
        asked = asyncio.ensure_future(self._http.request(method, path, json=body, timeout=no_limit))
        patience = Patience(self._limit_s)
        try:
            while not (await asyncio.wait([asked], timeout=min(_LOOK_EVERY_S, self._limit_s)))[0]:
                patience.saw(tokens=await self._count_tokens())
                problem = f"{path} was not answered: {patience.words}"
                if patience.waited_s > _LONGEST_CALL * self._limit_s:
                    problem = f"{path} was not answered in {patience.waited_s:.0f} s"
                elif not patience.is_over:
                    continue
                raise HostError(self._url, problem, "See its log: logs/vllm.log")
            return asked.result()
        finally:
            asked.cancel()

    async def _count_tokens(self) -> str | None:
        """Read the token counts of all requests so far; None where the server does not answer."""
        try:
            metrics = await self._http.get("/metrics", timeout=_LOOK_EVERY_S)
        except httpx.HTTPError:
            return None
        return "+".join(_TOKENS.findall(metrics.text)) or None


def _split_batches(prompts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Split into runs of neighbours within both caps; a prompt above the cap goes alone."""
    batch: list[Sequence[int]] = []
    tokens = 0
    for prompt in prompts:
        full = len(batch) == _SEQUENCES_PER_CALL or tokens + len(prompt) > _TOKENS_PER_CALL
        if batch and full:
            yield batch
            batch, tokens = [], 0
        batch.append(prompt)
        tokens += len(prompt)
    if batch:
        yield batch


def _pick_logprobs(ids: Sequence[int], found: Sequence[dict[str, Any] | None]) -> list[float]:
    # vLLM gives a table by id for each position, and None for the first.
    return [
        0.0 if table is None else float(table[str(token)]["logprob"])
        for token, table in zip(ids, found, strict=True)
    ]


def _find_base(cards: Sequence[_Card], url: str) -> _Card:
    base = next((card for card in cards if card.parent is None), None)
    if base is None:
        raise HostError(url, "it lists no base model", "Check what serves there")
    return base


def _message_of(answer: httpx.Response) -> str:
    """Return the message of an OpenAI-style error, else the start of the body."""
    try:
        content = answer.json()
    except ValueError:
        content = answer.text
    if isinstance(content, dict):
        error = content.get("error", content.get("detail", content))
        content = error.get("message", error) if isinstance(error, dict) else error
    return str(content)[:300]
