"""The quickstart's synthetic data: a small grammar of functions with documents, conversations and tasks."""
