"""Show a dataset of heatmaps as one page: what the network looks at for each class, and the photos to look at first.

    dataset ─ survey ─┬─ outcomes                                   ┐
                      ├─ classes ─ agreement ─ suspicion            ├─ page
                      └─ extremes ─ examples ─ pictures ─ gallery   ┘

`survey` reads the shards twice, batch by batch, and keeps sums of every class and the places of a few rows; `examples` fetches
those rows.  Memory grows with the classes, not with the photos.
"""

from camrt.scale.report.dataset import Dataset, open_dataset
from camrt.scale.report.finding import cautions, headline
from camrt.scale.report.page import page
from camrt.scale.report.summary import Summary, summarise, to_json
from camrt.scale.report.survey import PASSES, survey

__all__ = ["PASSES", "Dataset", "Summary", "cautions", "headline", "open_dataset", "page", "summarise", "survey", "to_json"]
