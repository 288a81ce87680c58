"""Reports of a chain for people: an HTML page with ladder, curves and lineage, and a picture of several seeds."""
