"""What a chain gained, for a person to look at: ladder, gates, curves, pictures, W&B."""
