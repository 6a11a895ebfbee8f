"""Arithmetic of the layer on tensors, without modules: back ends, operators, statistics."""
