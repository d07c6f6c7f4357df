"""The paper's ablation study in miniature: train and test the rows of Tables 2a–2g, judge the claims, write the tables.

command.py     `nlnet ablate`: runs the study, from the videos to the tables
study.py       the data sets, and the one training recipe that all rows share
rows.py        the tables row by row: Table 2d is `TABLES["2d"]`
plan.py        the training runs behind the tables, each with its own directory
cost.py        an estimate of how long the study takes on this machine
results.py     a row's accuracy, distances, cost and block statistics; which session made which run
statistics.py  95 % intervals, and the rules by which a difference counts as shown
claims.py      the paper's claims and ours, as data
verdicts.py    the verdict on each claim
report.py      ablations.json: the tables, verdicts and provenance
page.py        ablations.md: the same as a Markdown page
figures.py     the pictures of each table
kinetics.py    the paper's own rows at full size (`--recipe kinetics`)
"""
