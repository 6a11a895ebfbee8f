"""The data of a run: files that a config names, built datasets, and what made a run fail."""
