"""The machine the daemon runs on: supervision, the HTTP server, logs, the interpreter."""
