"""Numbers about trained models and trainings: costs, heat maps, kernels, errors, comparisons."""
