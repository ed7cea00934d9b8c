"""Events that come again: replays, redriven dead letters and their topic."""
