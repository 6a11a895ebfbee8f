"""What BNET costs and what it learnt: tables and images."""
