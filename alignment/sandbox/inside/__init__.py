"""What runs inside the sandbox: the launcher process and the drivers of the programs that it starts.

This folder's parent is put on the path of a bare interpreter (``python -s -S``), which imports it as the top-level
package ``inside``. Its modules therefore import only the standard library and, by relative imports, each other.
"""
