"""From rows to packed token ids: text segments, tokenization, mixing, packing and batch order."""
