"""Engines that generate completions, behind one interface."""
