"""Train one adapter of a job file and report on stdout, in lines."""

import os
import sys
from pathlib import Path

from adaptd.daemon.training.job import EXIT_LOCKED, PARENT_PID, Failed, read_job
from adaptd.daemon.training.worker import process
from adaptd.daemon.training.worker.failures import exit_code, explain


def main(job_path: Path) -> int:
    """Exit code 0 after a `done` line, else one of EXIT_CODES after a `failed` line.

    Without the lock on the run directory it does nothing and exits with EXIT_LOCKED.
    """
    process.die_with_parent(int(os.environ.get(PARENT_PID, "0")))
    job = read_job(job_path)
    if not process.lock_directory(Path(job.directory)):
        return EXIT_LOCKED
    process.settle(job)
    report = process.own_stdout()
    try:
        from adaptd.daemon.training.worker.run import train  # noqa: PLC0415 torch, after the environment

        report(train(job, report))
    except BaseException as error:  # noqa: BLE001 - whatever it was becomes the run's failure cause
        process.log_failure(error)
        cause, message = explain(error)
        report(Failed(cause=cause, message=message))
        return exit_code(cause)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
