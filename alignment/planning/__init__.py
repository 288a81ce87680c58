"""What a recipe needs before it runs: memory of each device, host memory, disk, tokens and steps."""
