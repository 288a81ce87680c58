"""Write datasets, keep temporary rows on disk, and run work in parallel or on several machines."""
