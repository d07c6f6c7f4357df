"""The `nlnet` command.

- `main`: the entry point: runs a command and ends the process with its exit code
- `commands`: the typer application: every command by name, in the order of the help page
- `runs`, `attention`, `networks`, `machine`, `studies`, `data`: the arguments and options of the commands
- `arguments`: arguments and options that several commands share
- `failures`: which errors are printed as one line, and which with their traceback

Nothing here imports torch, so `nlnet --help` is quick: a command imports what it needs, from `nlnet.apps.verbs` or the
folder of its study, when it runs.
"""
