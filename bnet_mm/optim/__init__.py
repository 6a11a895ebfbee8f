"""Optimizer groups in which BNET's kernel and bias get what a norm's scale and shift get."""
