"""The laboratory: experiments of Zhou et al. 2019 on the library."""
