"""Smooth random surfaces, from which everything simulated is drawn."""

import numpy as np
from scipy import fft


def smooth(generator: np.random.Generator, side: int, length: float) -> np.ndarray:
    """(side, side) float32 Gaussian noise of mean 0 and variance 1, smooth over `length` cells.

    White noise under a Gaussian filter with standard deviation `length`, so that values d cells apart correlate with
    exp(-d² / 4 length²). It is filtered on a larger square that closes on itself, of which a corner is kept.
    """
    around = fft.next_fast_len(side + int(5 * length) + 1, real=True)
    rows, columns = fft.fftfreq(around)[:, None], fft.rfftfreq(around)
    weights = np.exp(-2 * (np.pi * length) ** 2 * (rows**2 + columns**2))
    filtered = fft.irfft2(fft.rfft2(generator.standard_normal((around, around))) * weights, s=(around, around))
    full = np.exp(-4 * (np.pi * length) ** 2 * (rows**2 + fft.fftfreq(around) ** 2))  # power of every frequency
    return (filtered[:side, :side] / np.sqrt(full.mean())).astype(np.float32)
