"""What is special to the ad-sentiment example: its annotation form, its synthetic set and its figures."""
