"""The life of snapshots, runs, adapters, rollouts and policies."""
