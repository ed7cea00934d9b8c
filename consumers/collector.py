"""Python's garbage collector, made to look less often."""

import gc

# Every event is several objects that live for one chunk, and none is in a cycle. By default the
# collector looks after every 700 and finds nothing: a tenth of the processor time of ingestion.
_THRESHOLDS = (50_000, 20, 10)


def collect_rarely() -> None:
    """For the whole process, at its start. What is there already is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
