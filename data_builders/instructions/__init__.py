"""Builder `instructions`: conversations made from the code of repositories."""
