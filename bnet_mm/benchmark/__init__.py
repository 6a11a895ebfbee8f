"""What BNET costs, measured beside plain batch normalization and the paper's two lines."""
