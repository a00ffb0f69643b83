"""camrt serve: prediction and heatmap from one call, over HTTP; needs the extra `serve`.

request ─ gate ─ body ─ decode ─┬─ line ─ group of alike work ─ engine ─┬─ render ─ answer
request ─ gate ─ body ─ decode ─┘  bounded, oldest first                └─ render ─ answer
"""
