"""Writing datasets, bounded memory, parallel and distributed work."""
