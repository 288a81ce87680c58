"""Engines that generate completions, all behind `protocol.Engine`."""
