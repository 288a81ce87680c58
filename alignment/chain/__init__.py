"""From a recipe to finished artifacts: which steps are stale, one fresh set of processes per step, gates, the ladder."""
