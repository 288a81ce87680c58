"""From rows to token ids: screening against benchmarks, segments, tokenization, packing and batches."""
