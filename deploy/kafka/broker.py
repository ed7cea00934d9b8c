"""Run the one-node broker in the foreground: `python deploy/kafka/broker.py [--home DIR]`.

The first line of stdout is its address. Ctrl-C or SIGTERM ends it; the data stays in {home}/kafka.
"""

import argparse
import signal
import sys
import threading
from pathlib import Path

from adaptd.daemon.demo.broker import KafkaNode
from adaptd.daemon.demo.jars import fetch_jars
from adaptd.daemon.wire.errors import AdaptdError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--home", type=Path, default=Path("var"), help="where jars and data are kept"
    )
    parser.add_argument("--fetch-only", action="store_true", help="fetch the jars and end")
    arguments = parser.parse_args()
    jars = arguments.home / "kafka" / "jars"
    try:
        if arguments.fetch_only:
            fetch_jars(jars)
            return 0
        return _serve(KafkaNode(arguments.home / "kafka" / "data", jars=jars))
    except AdaptdError as error:
        print(error, file=sys.stderr)  # noqa: T201 a script's own words
        return 1


def _serve(node: KafkaNode) -> int:
    asked_to_end = threading.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, lambda *_: asked_to_end.set())
    node.start()
    print(node.bootstrap, flush=True)  # noqa: T201 the script's result
    asked_to_end.wait()
    node.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
