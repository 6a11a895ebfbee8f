"""Networks of torch modules, of any library: their blocks, and the placement of BNET in them."""
