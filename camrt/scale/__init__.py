"""Explain photos in bulk: a folder, a list or archives become a dataset of heatmaps, on one machine or on a Ray cluster.

    inputs ─ listing ─ parts ─┬─ worker ─ shard ─┐
                              ├─ worker ─ shard ─┼─ manifest
                              └─ worker ─ shard ─┘

`inputs` streams what is to be explained, `listing` freezes it as parts of a thousand photos in OUTPUT.  A part becomes a shard,
the unit of work, retry and resume: an engine (`local`, `cluster`) hands parts to workers, each a process of its own that a
`keeper` starts again when a photo kills it, and which writes its shard beside.  `batch` alone moves shards into their place and
notes them in the `manifest`; what is not noted is done again.
"""
