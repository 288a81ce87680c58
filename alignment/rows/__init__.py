"""Reading rows (JSONL, gzipped or not, JSON, Parquet) for builders, training and evaluation."""
