"""Imbalance report.

To be written.
"""

# %%
# Text.

from matplotlib import pyplot as plt

figure, axes = plt.subplots()
axes.set_title("imbalance_report")
print("output")
