"""Builder `tasks`: make executable tasks from the tests of repositories."""
