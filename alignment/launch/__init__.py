"""Starting a recipe: Accelerate's launcher, what its files say, and the files of clusters."""
