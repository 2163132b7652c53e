"""Random shifts and flips of a batch of images, on the device.

Axes: `B` batch, `H` height, `W` width, `C` channels.
"""

import jax
import jax.numpy as jnp
from jax import lax


def augment(key: jax.Array, images: jax.Array, *, shift: int = 0, flip: bool = False) -> jax.Array:
    """Return a batch in which every image is shifted and flipped at random.

    It is the augmentation that is usual for CIFAR-10: the image is padded with `shift` rows and
    columns of zeros (black) on every side, and a window of its old size is cut out at random; then
    left and right are exchanged with probability one half.

    Args:
      key: a typed key.
      images: `[B, H, W, C]` of any type.
      shift: the most pixels by which an image moves, along rows and along columns.
      flip: whether to exchange left and right.
    """
    shift_key, flip_key = jax.random.split(key)
    if shift:
        corners = jax.random.randint(shift_key, (len(images), 2), 0, 2 * shift + 1)
        padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
        images = jax.vmap(_window, in_axes=(0, 0, None))(padded, corners, images.shape[1:])
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(len(images), 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images


def _window(image: jax.Array, corner: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return lax.dynamic_slice(image, (corner[0], corner[1], jnp.zeros_like(corner[0])), shape)
