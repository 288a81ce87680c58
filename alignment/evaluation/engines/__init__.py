"""Engines that generate completions. All of them implement `protocol.Engine`."""
