"""What BNET costs, measured beside batch normalization and the reference implementation."""
