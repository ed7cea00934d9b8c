"""The model side: gateway and capture in the model server's process, host in the daemon."""

if not __name__.startswith("adaptd."):
    raise ImportError(f"import it as adaptd.{__name__}")
