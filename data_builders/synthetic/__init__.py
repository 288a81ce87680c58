"""Make synthetic data for the quickstart: documents, conversations and tasks from a small grammar of functions."""
