"""Mining in two dimensions.

To be written.
"""

# %%
# Text.

from matplotlib import pyplot as plt

figure, axes = plt.subplots()
axes.set_title("mining_in_two_dimensions")
print("output")
