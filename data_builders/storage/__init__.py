"""Writing datasets, temporary stores on disk, and parallel or distributed work."""
