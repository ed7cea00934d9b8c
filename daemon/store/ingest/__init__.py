"""Events on their way into the store, and the records about them."""
