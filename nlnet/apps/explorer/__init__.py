"""`nlnet explore`: a web page on which a click into a video shows where every non-local block looks from that point.

Python, the server:
`command.py` is the command: it loads runs, then serves the page or exports it.
`server.py` is the HTTP API (FastAPI) and serves the page's files.
`access.py` rejects requests of foreign web pages (checks of Host, Origin and Sec-Fetch-Site).
`session.py` computes the answers: frames, attention, class scores.
`lru_cache.py` is the cache of decoded videos, attention and scores.
`uploads.py` receives videos that are dropped on the page, with limits.
`encoding.py` encodes images and weights as text for JSON.
`export.py` writes the page with all its answers into one HTML file that needs no server.

JavaScript, the page (`page/`):
`index.html` and `style.css` are its layout, `icon.svg` its icon.
`app.js` starts the page, connects the parts and handles uploads and downloads.
`arrows.js` draws the arrows to the strongest keys, the marks of the keys and the star at the query.
`heatmap.js` draws the heat maps and the thumbnails of the blocks.
`figure.js` lays out the frames of the clip and puts heat maps and arrows on them; `png.js` saves figures as PNG.
`pane.js` shows one run: its figure, tables and predictions; two panes compare two runs.
`lists.js` fills the list of blocks and the table of the strongest keys; `predictions.js` the class scores.
`player.js` plays the clip; `input.js` turns mouse and keys into query positions; `toolbar.js` is the controls on top.
`geometry.js` is the arithmetic: strongest keys, nearest cells, number formats.
`state.js` keeps the page's state in its address; `source.js` gets answers from the server or from the exported file.
`requests.js` sends one request at a time and drops those that are out of date.
"""
