"""From a recipe to finished artifacts: what is stale, one fresh set of processes per stage, and what they leave behind."""
