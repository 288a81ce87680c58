"""Language models that write or score rows while data is built."""
