"""Refusals: answers that the gateway gives itself, in the shape OpenAI's clients understand."""

from typing import Any

RETRY_AFTER_S = 1


class RefusalError(Exception):
    """A request the gateway answers itself. Callers read the message, so it names no version.

    `retry_after_s` set means that the same request may succeed later.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        if self.retry_after_s is None:
            return []
        return [(b"retry-after", str(self.retry_after_s).encode())]


def bad_request(message: str, *, param: str | None = None) -> RefusalError:
    return RefusalError(400, message, param=param)


def no_token() -> RefusalError:
    return RefusalError(
        401,
        "No valid API key was given. Send it as `Authorization: Bearer KEY`.",
        kind="authentication_error",
        code="invalid_api_key",
    )


def not_permitted(message: str) -> RefusalError:
    return RefusalError(403, message, kind="permission_error", code="permission_denied")


def no_such_route(method: str, path: str) -> RefusalError:
    return RefusalError(404, f"Invalid URL ({method} {path})", code="unknown_url")


def no_such_model(model: str) -> RefusalError:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return RefusalError(404, message, param="model", code="model_not_found")


def too_large(limit_bytes: int) -> RefusalError:
    message = f"The request is larger than {limit_bytes} bytes."
    return RefusalError(413, message, code="request_too_large")


def too_slow(limit_s: float) -> RefusalError:
    message = f"The request did not arrive within {limit_s:g} seconds."
    return RefusalError(408, message, kind="timeout_error", code="request_timeout")


def not_ready(message: str) -> RefusalError:
    return RefusalError(
        503, message, kind="server_error", code="not_ready", retry_after_s=RETRY_AFTER_S
    )


def model_not_ready(model: str) -> RefusalError:
    return not_ready(f"The model `{model}` is not ready. Try again in a moment.")


def server_failed() -> RefusalError:
    message = "The model server failed. Its log says why."
    return RefusalError(500, message, kind="server_error", code="internal_error")
