"""Parse source code: languages, imports, syntax spans, functions, notebooks."""
