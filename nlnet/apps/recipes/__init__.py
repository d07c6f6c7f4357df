"""Recipes: complete training configurations by name, and what they cost.

- `catalogue`: all recipes by name; the demo's and those for fine-tuning are written there
- `kinetics`: the recipes of the paper and of its release
- `published`: the accuracy that paper and release report, row by row, with the recipe of each row
- `costs`: multiply-adds, memory and GPU-hours of a configuration
- `plan`: what `nlnet train RECIPE --dry-run` prints
- `preflight`: the warnings of a plan: what is missing, what differs from the recipe, what does not fit
"""
