"""Filters, licences, secrets, duplicates and decontamination: what may become a row."""
