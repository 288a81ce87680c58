"""Reading git repositories and folders, local or remote."""
