"""Starts recipes with Accelerate's launcher, and writes the files that start recipes on a cluster."""
