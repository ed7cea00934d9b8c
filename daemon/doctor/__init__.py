"""`adaptd doctor`: facts gathered by probes, judged by pure checks, each with what to do."""
