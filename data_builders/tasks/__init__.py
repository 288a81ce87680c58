"""Builder `tasks`: executable tasks made from the tests of repositories."""
