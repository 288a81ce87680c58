"""Read git repositories and folders, local or remote."""
