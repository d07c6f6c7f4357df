"""The explorer: a page in the browser where a click on a video shows where every non-local block looks from there.

`session` knows runs and videos and computes; `wire` is how its answers travel; `server` serves them to the page,
behind `guard`, and takes `uploads`; `export` writes the same page with its answers inside. The page is in `page/`.
"""
