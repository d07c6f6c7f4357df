"""`python -m nlnet`, and with it `torchrun … -m nlnet train …`."""

from nlnet.apps.cli.main import main

if __name__ == "__main__":
    main()
