"""Turn rows into token ids: remove benchmark texts, split rows into segments, tokenize, pack, and order batches."""
