"""The demo: simulated customers around the real parts."""
