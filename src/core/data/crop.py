"""The centre crop of a tile."""


def centre_origin(height: int, width: int, crop_height: int, crop_width: int) -> tuple[int, int]:
    """Top row and left column of the centre crop; an odd margin is one pixel smaller in the north and west."""
    return (height - crop_height) // 2, (width - crop_width) // 2


def centre_crop(images, height: int, width: int):
    """The middle `height` x `width` pixels of (..., H, W), a view of a numpy array or a torch tensor."""
    top, left = centre_origin(*images.shape[-2:], height, width)
    return images[..., top : top + height, left : left + width]
