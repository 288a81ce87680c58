"""Statistics of evaluations: pass@k, text scores, intervals and paired comparisons."""
