"""The commands that work on one run, network or data set.

Each file has the function that its command calls: it turns arguments into calls of the package, prints the
outcome as tables or JSON, and returns the exit code where that can be other than 0.

- `train`, `test`, `predict`, `score`: runs; `test` also writes the files of a test folder
- `convert`: weight files of other projects
- `models`, `recipe_list`: `nlnet models`, and the same with `--recipes`
- `doctor`, `memory_fit`: `nlnet doctor`, and the same with `--recipe`
- `data`: `nlnet data make` and `nlnet data check`

The larger commands have folders of their own beside this one: `report`, `attend`, `explorer`, `bench`, `demo`,
`ablation`.
"""
