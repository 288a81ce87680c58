"""Make executable tasks from JavaScript and TypeScript repositories."""
