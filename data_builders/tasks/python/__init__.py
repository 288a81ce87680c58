"""Make executable tasks from Python repositories with pytest suites."""
