"""Statistics of evaluations: pass@k, text scores, confidence intervals and paired comparisons."""
