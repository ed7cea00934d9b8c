"""The model side: the gateway inside vLLM, and the daemon's hand on the server."""

if not __name__.startswith("adaptd."):
    raise ImportError(f"import it as adaptd.{__name__}")
