"""Cleaning files and rows: filters, licences, secrets, duplicates and decontamination."""
