"""The study of BNET against batch norm: what is run, how, and what it gave (study/README.md)."""
