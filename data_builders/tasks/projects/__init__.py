"""Make executable tasks from repositories in compiled languages."""
