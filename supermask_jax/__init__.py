"""Lottery tickets and supermasks in JAX, as pure functions on any pytree.

The library takes "Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask"
(Zhou et al. 2019, https://arxiv.org/abs/1905.01067) apart into functions: which weights to
keep (`criteria`, `masks`), how many (`rates`), what the kept and the pruned ones are set to
(`actions`), one round of it all (`rounds`), masks that make untrained networks work
(`supermasks`), what masks have in common (`analysis`) and their files (`mask_files`), and the
training of whole populations of networks in one compiled program (`transforms`, `training`,
`population`).
"""

__version__ = "0.1.0"
