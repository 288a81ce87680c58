"""Models: prompt formats, loading, merging and saving, attention kernels, and checks of saved models."""
