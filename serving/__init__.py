"""The model side: gateway and vLLM. No store, no torch."""
