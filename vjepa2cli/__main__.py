"""`python -m vjepa2cli`, so that torchrun and deepspeed can launch the command."""

from vjepa2cli.cli import main

if __name__ == "__main__":
    main()
