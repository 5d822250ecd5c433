"""The ad-sentiment application, as `python examples/ads`."""

from ads.program import run_program

if __name__ == "__main__":
    run_program()
