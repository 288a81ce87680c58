"""The live page of `align ui`: runs, stages, curves, the ladder, rollouts, completions, data, logs, and a chat."""
