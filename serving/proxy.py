"""The gateway's path in uvicorn's command line: `--factory adaptd.serving.proxy:create`."""

from adaptd.serving.gateway.proxy import create

__all__ = ["create"]
