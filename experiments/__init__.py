"""The laboratory: the experiments of Zhou et al. 2019, built on the library."""
