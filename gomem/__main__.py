"""`python -m gomem`: the same as the command `gomem`."""

from gomem.tracer.cli import main

if __name__ == "__main__":
    main()
