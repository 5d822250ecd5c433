"""Images and texts.

To be written.
"""

# %%
# Text.

from matplotlib import pyplot as plt

figure, axes = plt.subplots()
axes.set_title("images_and_texts")
print("output")
