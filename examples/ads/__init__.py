"""Code specific to the ad-sentiment example: its annotation format, its synthetic set and its figures."""
