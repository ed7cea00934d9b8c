"""The process that opens the store and decides."""

if not __name__.startswith("adaptd."):
    raise ImportError(f"import it as adaptd.{__name__}")
