"""The `nlnet` command as a module: `python -m nlnet`, or `torchrun … -m nlnet train …` for several processes."""

from nlnet.apps.cli.main import main

if __name__ == "__main__":
    main()
