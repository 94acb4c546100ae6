"""Smooth random surfaces, from which everything simulated is drawn."""

import numpy as np
from scipy import fft


def smooth(generator: np.random.Generator, side: int, length: float) -> np.ndarray:
    """(side, side) float32 Gaussian noise of mean 0 and variance 1, smooth over `length` cells.

    White noise under a Gaussian filter with standard deviation `length`, so that values d cells apart correlate with
    exp(-d² / 4 length²). It is filtered on a larger square that closes on itself, of which a corner is kept.
    """
    around = fft.next_fast_len(side + int(5 * length) + 1, real=True)
    weights = np.exp(-2 * (np.pi * length * fft.fftfreq(around)) ** 2)  # of the frequencies along one axis
    weights = (weights / np.sqrt((weights**2).mean())).astype(np.float32)
    white = fft.rfft2(generator.standard_normal((around, around), np.float32))
    white *= weights[:, None]
    white *= weights[: white.shape[1]]
    return fft.irfft2(white, s=(around, around))[:side, :side]
