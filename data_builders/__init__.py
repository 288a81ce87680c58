"""Dataset builders: from private repositories to rows that a model can be trained and measured on."""
