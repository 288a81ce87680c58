"""Where a model comes from: lineage of artifacts, model card sections, ML-BOM, summary of training content, signatures."""
