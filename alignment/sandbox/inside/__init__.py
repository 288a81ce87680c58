"""Code that runs inside the sandbox: the launcher process and the drivers of the programs that it starts.

A bare interpreter (``python -s -S``) imports this folder as the top-level package ``inside``. The modules of this
package therefore import only the standard library and, by relative imports, each other.
"""
