"""Training and testing from a config, for all OpenMMLab libraries alike."""
