"""The ad-sentiment application on your own images: `--images FOLDER --labels FILE.csv`."""

from ads.program import run_program

if __name__ == "__main__":
    run_program()
