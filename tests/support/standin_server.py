"""Stands where vLLM would under the supervisor, to die, hang or fail on demand.

Started as the supervisor starts vLLM, so it takes vLLM's options and uses --port only. A file in
its working directory decides: `fail` ends it at start, `hang` makes it accept and never answer,
`busy` makes it accept, compute and never answer, `slow` makes it work for 3 s before it listens,
`spin` makes it work for ever instead, `still` do nothing.
"""

import argparse
import http.server
import signal
import subprocess
import sys
import time
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        while (self.server_home / "hang").exists():
            time.sleep(0.05)
        while (self.server_home / "busy").exists():
            sum(range(10_000))
        self.send_response(200)
        self.end_headers()

    server_home = Path()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--model", type=Path)
    known, _ = parser.parse_known_args()
    Handler.server_home = known.model
    if (known.model / "fail").exists():
        sys.exit("ValueError: the model is not to its liking")
    ready_at = time.monotonic() + 3
    while (known.model / "slow").exists() and time.monotonic() < ready_at:
        sum(range(10_000))
    while (known.model / "spin").exists():
        sum(range(10_000))
    while (known.model / "still").exists():
        time.sleep(1)
    ignoring = "import signal,time;signal.signal(signal.SIGTERM,signal.SIG_IGN);time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", ignoring])  # as vLLM's engine process
    (known.model / "child").write_text(str(child.pid))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.ThreadingHTTPServer(("127.0.0.1", known.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
