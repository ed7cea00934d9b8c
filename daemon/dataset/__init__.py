"""From stored examples to an immutable training snapshot."""
