"""Similarity and neighbors.

To be written.
"""

# %%
# Text.

from matplotlib import pyplot as plt

figure, axes = plt.subplots()
axes.set_title("similarity_and_neighbors")
print("output")
