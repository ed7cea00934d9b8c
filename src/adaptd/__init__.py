"""adaptd: keeps a served language model learning from its own production feedback.

The three folders of the repository's top level stand here as links, so that they install as
`adaptd.daemon`, `adaptd.consumers` and `adaptd.serving`.
"""

from pathlib import Path

__version__ = "0.1.0"

# What a child process needs on its path to import the same code. Not resolved: behind the links
# the folders would be importable by their short names.
IMPORT_ROOT = Path(__file__).parents[1]
