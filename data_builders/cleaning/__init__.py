"""Clean files and rows: filters, licenses, secrets, duplicates and decontamination."""
