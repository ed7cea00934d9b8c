"""The dataset stage: from stored examples to an immutable training snapshot."""
