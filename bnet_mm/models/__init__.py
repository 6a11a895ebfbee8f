"""Networks of torch modules, of any library: their blocks, and where BNET stands in them."""
