"""Simulated customers and the desk's agents, through the official OpenAI client and the gateway.

The true queue of a message is known only here. Customers rate some answers, agents correct some of
the wrong ones; both take their time. Everything goes over HTTP as a real application would send it.
"""

import asyncio
import contextlib
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
import openai

from adaptd.daemon.demo.golden import golden_texts
from adaptd.daemon.demo.texts import QUEUES, SYSTEM_PROMPT, Message, distinct, message

RATED_SHARE = 0.28  # of all answers
CORRECTED_SHARE = 0.40  # of the wrong ones
WRONG_CORRECTIONS = 0.10  # of the corrections
MEAN_DELAY_S = 15.0  # uniform from 0 to twice this
FOLLOW_UP_SHARE = 0.30  # of conversations have a second turn: 23 % of the requests
STREAMED_SHARE = 0.5
MAX_TOKENS = 12
POISONER = "agent-7"
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.2, 2.0
_LIMIT_S = 600.0  # the official client's default; the demo itself ends where no answer comes


@dataclass
class CustomerTally:
    """Requests and answers as the customers count them, apart from anything adaptd counts."""

    interactions: list[str] = field(default_factory=list)
    feedback: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    right: int = 0


@dataclass(frozen=True)
class CustomerAnswer:
    interaction: str
    text: str
    tokens: int


class Desk:
    """One support desk: a population of customers and agents with a seed."""

    def __init__(self, url: str, token: str, *, seed: int = 7, delay_scale: float = 1.0) -> None:
        self.tally = CustomerTally()
        self._client = openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key=token,
            max_retries=0,
            timeout=_LIMIT_S,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        )
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_LIMIT_S,
            trust_env=False,
        )
        self._rng = random.Random(seed)  # noqa: S311 - a simulation, no secret
        self._taken = golden_texts()
        self._late: set[asyncio.Task[None]] = set()
        self._delay_scale = delay_scale

    @property
    def answered(self) -> int:
        """Requests that have their answer, or have failed."""
        return len(self.tally.interactions) + len(self.tally.failed)

    @property
    def given(self) -> int:
        """Feedback that was accepted, or has failed."""
        return len(self.tally.feedback) + len(self.tally.failed)

    async def ask_many(
        self, count: int, *, queues: tuple[str, ...], clients: int = 12, poison: str | None = None
    ) -> None:
        """`count` requests from a few clients at once; returns when all are answered.

        Feedback follows later, see `settle`. With `poison` a hostile agent corrects every answer to
        that queue.
        """
        source = distinct(self._rng, queues, self._taken)
        left = iter(range(count))
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client_loop(left, source, queues, poison))

    async def ask_until(
        self,
        stop: asyncio.Event,
        *,
        queues: tuple[str, ...],
        clients: int,
        pause_s: float = 0,
        at_most: int | None = None,
    ) -> None:
        """Ask until `stop` is set, then finish what was begun: no request is cut off.

        After `at_most` requests it only waits for `stop`: what is learnt later must not depend on
        how long this machine took.
        """
        asked = 0
        while not stop.is_set():
            if at_most is not None and asked >= at_most:
                await stop.wait()
                return
            await self.ask_many(2 * clients, queues=queues, clients=clients)
            asked += 2 * clients
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s or 0.001)

    async def settle(self) -> None:
        """Wait until the last feedback on the way has been accepted."""
        while self._late:
            await asyncio.gather(*list(self._late))

    async def measure(
        self, count: int, *, queues: tuple[str, ...] = QUEUES, reserved: bool = False
    ) -> CustomerTally:
        """Ask fresh messages nobody gives feedback on and count the right answers."""
        rng = random.Random(99 if reserved else 98)  # noqa: S311 - a simulation, no secret
        source = distinct(rng, queues, self._taken, reserved=reserved)
        tally = CustomerTally()
        limit = asyncio.Semaphore(12)

        async def one(asked: Message) -> None:
            async with limit:
                answer = await self._ask_once(
                    [_user_message(asked.text)], f"measure-{uuid.uuid4().hex}", "probe"
                )
            if answer is not None:
                tally.right += _normalise_text(answer.text) == asked.queue
                tally.tokens.append(answer.tokens)
                tally.interactions.append(answer.interaction)

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one(next(source)))
        return tally

    async def close(self) -> None:
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        await self._client.close()
        await self._http.aclose()

    async def _client_loop(
        self,
        left: Iterator[int],
        source: Iterator[Message],
        queues: tuple[str, ...],
        poison: str | None,
    ) -> None:
        while next(left, None) is not None:
            conversation = f"c-{uuid.UUID(int=self._rng.getrandbits(128)).hex}"
            first = next(source)
            history = [_user_message(first.text)]
            answer = await self._take_turn(history, conversation, first, poison)
            if answer is None or self._rng.random() >= FOLLOW_UP_SHARE:
                continue
            if next(left, None) is None:
                return
            second = message(self._rng, self._rng.choice(queues), follow_up=True)
            history += [{"role": "assistant", "content": answer.text}, _user_message(second.text)]
            await self._take_turn(history, conversation, second, poison)

    async def _take_turn(
        self,
        history: list[dict[str, str]],
        conversation: str,
        asked: Message,
        poison: str | None,
    ) -> CustomerAnswer | None:
        user = f"customer-{self._rng.randrange(400)}"
        answer = await self._ask_once(history, conversation, user)
        if answer is not None:
            self._judge_answer(answer, asked, user, poison)
        return answer

    async def _ask_once(
        self, history: list[dict[str, str]], conversation: str, user: str
    ) -> CustomerAnswer | None:
        messages: Any = [{"role": "system", "content": SYSTEM_PROMPT}, *history]
        options: Any = {
            "model": "support",
            "messages": messages,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "user": user,
            "extra_headers": {"X-Adaptd-Conversation": conversation},
            "extra_body": {"metadata": {"product": "cards"}},
        }
        try:
            streamed = self._rng.random() < STREAMED_SHARE
            answer = await (self._ask_streamed(options) if streamed else self._ask_plain(options))
        except openai.OpenAIError as error:
            self.tally.failed.append(f"{type(error).__name__}: {error}")
            return None
        self.tally.interactions.append(answer.interaction)
        self.tally.tokens.append(answer.tokens)
        return answer

    async def _ask_plain(self, options: Any) -> CustomerAnswer:
        done: Any = await self._client.chat.completions.create(**options)
        tokens = done.usage.total_tokens if done.usage else 0
        return CustomerAnswer(done.id, done.choices[0].message.content or "", tokens)

    async def _ask_streamed(self, options: Any) -> CustomerAnswer:
        options = options | {"stream": True, "stream_options": {"include_usage": True}}
        stream: Any = await self._client.chat.completions.create(**options)
        parts, interaction, tokens = [], "", 0
        async for chunk in stream:
            interaction = chunk.id
            tokens = chunk.usage.total_tokens if chunk.usage else tokens
            parts += [choice.delta.content or "" for choice in chunk.choices]
        return CustomerAnswer(interaction, "".join(parts), tokens)

    def _judge_answer(
        self, answer: CustomerAnswer, asked: Message, user: str, poison: str | None
    ) -> None:
        """Decide what customer and agent will say about an answer, and send it later."""
        wrong = _normalise_text(answer.text) != asked.queue
        self.tally.right += not wrong
        if self._rng.random() < RATED_SHARE:
            value = -1 if wrong else 1
            self._send_later(
                {"interaction": answer.interaction, "kind": "rating", "value": value, "user": user}
            )
        if poison is not None:
            self._send_correction(answer, poison, POISONER)
        elif wrong and self._rng.random() < CORRECTED_SHARE:
            slip = self._rng.random() < WRONG_CORRECTIONS
            others = [queue for queue in QUEUES if queue != asked.queue]
            text = self._rng.choice(others) if slip else asked.queue
            self._send_correction(answer, text, f"agent-{self._rng.randrange(1, 6)}")

    def _send_correction(self, answer: CustomerAnswer, text: str, agent: str) -> None:
        self._send_later(
            {
                "interaction": answer.interaction,
                "kind": "correction",
                "text": text,
                "source": "agent",
                "user": agent,
            }
        )

    def _send_later(self, body: dict[str, Any]) -> None:
        body["id"] = f"f-{uuid.UUID(int=self._rng.getrandbits(128)).hex}"
        delay_s = self._rng.uniform(0, 2 * MEAN_DELAY_S) * self._delay_scale
        task = asyncio.create_task(self._send_feedback(body, delay_s))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _send_feedback(self, body: dict[str, Any], delay_s: float) -> None:
        """Deliver one feedback; after a 503 it is repeated, safely, under the same id.

        For as long as it takes: whoever waits for it sees that nothing is delivered.
        """
        await asyncio.sleep(delay_s)
        try:
            pause_s = _FIRST_PAUSE_S
            answer = await self._http.post("/v1/feedback", json=body)
            while answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                await asyncio.sleep(pause_s)
                pause_s = min(_LAST_PAUSE_S, 2 * pause_s)
                answer = await self._http.post("/v1/feedback", json=body)
        except httpx.TransportError as error:
            self.tally.failed.append(f"feedback: {type(error).__name__}")
            return
        if answer.is_success:  # the event's id holds the tenant, before the one we gave
            self.tally.feedback += [event["id"] for event in answer.json()["accepted"]]
        else:
            self.tally.failed.append(f"feedback: HTTP {answer.status_code}")


def _user_message(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _normalise_text(text: str) -> str:
    return text.strip().casefold()
