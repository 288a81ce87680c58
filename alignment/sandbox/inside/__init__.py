"""Code that runs inside the sandbox: the launcher, which starts programs, and the driver, which runs each program.

A bare interpreter (``python -s -S``) imports this folder as the top-level package ``inside``. The modules of this
package therefore import only the standard library and, by relative imports, each other.
"""
