"""The gateway's path in vLLM's command line: `--middleware adaptd.serving.middleware.Gateway`."""

from adaptd.serving.gateway.app import Gateway

__all__ = ["Gateway"]
