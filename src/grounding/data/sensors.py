"""Bands and units that every part of the pipeline means.

In memory a radar image is (2, H, W) float32 in dB, an optical image (4, H, W) float32 reflectance from 0 to 1.
"""

SAR_BANDS = ("VV", "VH")
OPTICAL_BANDS = ("B02", "B03", "B04", "B08")  # blue, green, red, near infrared
