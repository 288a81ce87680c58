"""Run language models that write or score rows during a build."""
