"""What runs on the other side: the launcher process and the programs it starts.

This folder is put on the path of a bare interpreter (``python -s -S``) as the top-level package ``inside``, so it
imports the standard library and itself only, relatively.
"""
