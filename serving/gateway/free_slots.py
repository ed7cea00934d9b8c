"""Free the slots of adapters that vLLM has unloaded.

vLLM's own route only forgets the name: weights and slot stay until other adapters push them out.
Full slots are more than waste on CPUs, see `adaptd.serving.host.launch.SPARE_LORAS`. Stands alone
because it is the only code that reaches into vLLM's engine.
"""

from typing import Any

import structlog

from adaptd.serving.gateway.asgi import App, Receive, Scope, Send

UNLOAD = ("POST", "/v1/unload_lora_adapter")


async def unload(
    app: App,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    log: structlog.typing.FilteringBoundLogger,
) -> None:
    """Let vLLM answer, then free every adapter without a name.

    That includes adapters that requests under way brought back after an earlier unload. One that
    is being loaded at this moment may be freed too; vLLM then reads it again at its first request.
    """
    await app(scope, receive, send)
    state: Any = getattr(scope.get("app"), "state", None)
    models = getattr(state, "openai_serving_models", None)
    if models is None:  # a reverse proxy: the engine is in another process
        return
    named = {request.lora_int_id for request in models.lora_requests.values()}
    for number in set(await state.engine_client.list_loras()) - named:
        await state.engine_client.remove_lora(number)
        log.info("adapter_slot_freed", number=number)
