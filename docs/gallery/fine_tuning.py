"""Fine tuning.

To be written.
"""

# %%
# Text.

from matplotlib import pyplot as plt

figure, axes = plt.subplots()
axes.set_title("fine_tuning")
print("output")
