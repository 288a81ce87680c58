"""The kinds of stages: one thin module each, with `run(request)`, on top of TRL's trainers."""
