"""adaptd: keeps a served language model learning from its own production feedback."""

__version__ = "0.1.0"
