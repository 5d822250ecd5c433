"""Retrieval with reasons.

To be written.
"""

# %%
# Text.

from matplotlib import pyplot as plt

figure, axes = plt.subplots()
axes.set_title("retrieval_with_reasons")
print("output")
