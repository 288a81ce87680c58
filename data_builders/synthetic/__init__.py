"""Make the quickstart's synthetic data: documents, conversations and tasks from a small grammar of functions."""
