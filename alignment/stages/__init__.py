"""One module for each kind of stage, with a function `run(request: StageRequest)`.

Most stages that train use a trainer of TRL.

`alignment.stages.__main__` is the main program of a stage's process. It imports the module that is named like the
stage's `kind` and calls `run`. The values that `run` returns become part of `artifact.json`.
"""
