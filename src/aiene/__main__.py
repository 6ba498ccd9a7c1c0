"""`python -m aiene` is the `aiene` command."""

from aiene.cli.app import main

if __name__ == "__main__":
    main()
