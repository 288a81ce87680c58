"""The kinds of stages: one module each, with `run(request: StageRequest)`, mostly on top of a trainer of TRL.

`alignment.stages.__main__` is the process of a stage; it imports the module that has the name of the stage's `kind`. What
`run` returns becomes part of `artifact.json`.
"""
