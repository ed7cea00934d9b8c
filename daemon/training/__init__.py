"""Training runs: queue, child process, progress, result."""
