"""The OpenMMLab libraries' own ResNet families, with BNET at a chosen position of each block."""
