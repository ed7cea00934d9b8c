"""Ctrl-C in a command that waits: exit code 130, and no stack trace."""

import os
import signal
import socket
import subprocess
import sys

from tests.support.broker import ROOT


def test_ctrl_c_while_a_command_waits_for_the_daemon_leaves_no_trace() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = subprocess.Popen(
            [sys.executable, "-m", "adaptd.daemon.cli", "status"],
            cwd=ROOT,
            env=os.environ | {"ADAPTD_URL": url, "ADAPTD_TOKEN": "t"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        connection, _ = silent.accept()
        with connection:
            command.send_signal(signal.SIGINT)
            said, _ = command.communicate(timeout=20)
    assert command.returncode == 130
    assert b"Traceback" not in said
