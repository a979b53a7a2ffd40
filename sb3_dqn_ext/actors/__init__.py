"""Actors: processes that step environments with their own copies of the network, after Ape-X (Horgan et al. 2018)."""
