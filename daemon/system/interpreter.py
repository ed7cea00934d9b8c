"""Tune Python for a process of many threads and many small objects.

Stands alone: it concerns the process, and nothing that the process does.
"""

import gc
import sys

# Every event is several objects that live for one chunk, and none is in a cycle. By default the
# collector looks after every 700 and finds nothing: a tenth of the processor time of ingestion.
_THRESHOLDS = (50_000, 20, 10)
# How long a thread that wants to run waits for one that computes. The store's thread comes back
# from DuckDB a dozen times a transaction, and Python's 5 ms each took a tenth of the rate.
_SWITCH_S = 0.0005


def tune_interpreter() -> None:
    """For the whole process, at its start. What is there already is never collected again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_S)
