"""Events on their way into the store, and the books about them."""
