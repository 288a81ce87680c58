"""Models: their prompt formats, loading, merging and saving, attention kernels, and the contract of a saved model."""
