"""Average precision by support.

To be written.
"""

# %%
# Text.

from matplotlib import pyplot as plt

figure, axes = plt.subplots()
axes.set_title("average_precision_by_support")
print("output")
