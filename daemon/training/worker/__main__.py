"""Train one adapter of a job file, as a process of its own, and report on stdout, in lines."""

import os
import sys
from pathlib import Path

from adaptd.daemon.training.job import EXIT_LOCKED, PARENT_PID, Failed, read_job
from adaptd.daemon.training.worker import process
from adaptd.daemon.training.worker.failures import exit_code, explain_failure


def main(job_path: Path) -> int:
    """Train and return the exit code: 0 after a `done` line, one of EXIT_CODES after `failed`.

    1. Die with the daemon from here on.
    2. Lock the run directory; where another child holds it, return EXIT_LOCKED and change nothing.
    3. Set priority, threads and environment, and keep stdout for the lines.
    4. Import torch, train, and report the adapter or the failure.
    """
    process.die_with_parent(int(os.environ.get(PARENT_PID, "0")))
    job = read_job(job_path)
    if not process.lock_directory(Path(job.directory)):
        return EXIT_LOCKED
    process.set_up(job)
    report = process.redirect_stdout()
    try:
        from adaptd.daemon.training.worker.run import train  # noqa: PLC0415 torch, after the environment

        report(train(job, report))
    except BaseException as error:  # noqa: BLE001 - any error becomes the run's failure cause
        process.log_failure(error)
        cause, message = explain_failure(error)
        report(Failed(cause=cause, message=message))
        return exit_code(cause)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
