"""Starting a recipe: Accelerate's launcher, and the files that start it on a cluster."""
