from __future__ import annotations

import cv2
import numpy as np
import pytest

import camrt
from camrt.evaluate import describe, find_photos


def written(folder, text: str, name: str = "table.csv"):
    (folder / name).write_text(text)
    return folder / name


def described(folder, manifest, **files):
    return {s.name: s for s in describe(find_photos([folder / "photos"]), manifest, **files)}


def test_labels_are_indices_or_names_and_files_paths_or_last_parts(folder, tiny):
    labels = written(folder, "file,class\na.png,bee\n./sub/b.jpg,3\nelsewhere/c.png,crane\n".replace("crane", "ant"))
    found = described(folder, tiny.manifest, labels=labels)
    assert [found[name].label for name in ("a.png", "sub/b.jpg", "sub/c.png")] == [1, 3, 0]


def test_boxes_of_one_class_tell_the_label_and_lie_on_the_photo(folder, tiny):
    boxes = written(folder, "file,class_index,x0,y0,x1,y1\na.png,2,0,0,5,4\na.png,2,10,5,12,10\n")
    subject = described(folder, tiny.manifest, boxes=boxes)["a.png"]
    expected = np.zeros((10, 20), bool)
    expected[:4, :5] = expected[5:, 10:12] = True
    assert subject.label == 2
    assert (subject.region(2, (10, 20)) == expected).all()
    assert subject.region(1, (10, 20)) is None


def test_boxes_without_a_class_are_those_of_the_label(folder, tiny):
    boxes = written(folder, "file,x0,y0,x1,y1\na.png,0,0,5,4\n")
    labels = written(folder, "file,class\na.png,1\n", "labels.csv")
    subject = described(folder, tiny.manifest, boxes=boxes, labels=labels)["a.png"]
    assert subject.region(1, (10, 20)).sum() == 20
    assert subject.region(2, (10, 20)) is None


@pytest.mark.parametrize("as_csv", [False, True], ids=["a folder", "a CSV"])
def test_masks_are_found_in_a_folder_or_by_a_csv(folder, tiny, as_csv):
    grey = np.zeros((10, 20), np.uint8)
    grey[2:4, 3:9] = 255
    (folder / "masks" / "sub").mkdir(parents=True)
    cv2.imwrite(str(folder / "masks" / "sub" / "b.png"), grey)
    masks = written(folder, "file,class_index,mask\nsub/b.jpg,3,masks/sub/b.png\n") if as_csv else folder / "masks"
    subject = described(folder, tiny.manifest, masks=masks)["sub/b.jpg"]
    assert subject.label == (3 if as_csv else None)
    assert (subject.region(3, (10, 20)) == (grey > 0)).all()


def test_a_mask_of_another_size_is_an_error_of_that_photo(folder, tiny):
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks" / "a.png"), np.zeros((5, 20), np.uint8))
    subject = described(folder, tiny.manifest, masks=folder / "masks")["a.png"]
    with pytest.raises(camrt.ImageError, match="a mask has the photo's size 20 x 10, this has 20 x 5"):
        subject.region(0, (10, 20))


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("labels", "name,class\na.png,1\n", "must have the columns file, found name, class"),
        ("labels", "file,class\n", "must have the columns file, found none"),
        ("labels", "file,class\na.png,1\na.png,2\n", "'a.png' is class 1 in one row and 2 in another"),
        ("labels", "file,class\nz.png,1\n", "none of its 1 rows names one of the photos, for instance 'z.png'"),
        ("labels", "file,class\na.png,moose\n", "'a.png': bundle has no class 'moose'"),
        ("labels", "file,class\na.png,crane\n", "is the name of 2 classes"),
        ("labels", "file,class\na.png,\n", "'a.png' has no class"),
        ("labels", "file,class\na.png\n", "row 2: it has not as many values"),
        ("labels", "file,class\na.png,1,2\n", "row 2: it has not as many values"),
        ("labels", 'file,class\n"a.png,1\n', "is not a CSV"),
        ("boxes", "file,x0,y0,x1\na.png,1,2,3\n", "must have the columns file, x0, y0, x1, y1"),
        ("boxes", "file,x0,y0,x1,y1\na.png,1,2,3,two\n", "got 1, 2, 3, two"),
        ("boxes", "file,x0,y0,x1,y1\na.png,3,2,1,4\n", "a box is x0 < x1 and y0 < y1 in pixels, got 3, 2, 1, 4"),
        ("boxes", "file,x0,y0,x1,y1\na.png,nan,2,1,4\n", "a box is x0 < x1"),
    ],
)
def test_a_broken_table_is_refused_by_its_place(folder, tiny, option, text, message):
    with pytest.raises(camrt.ParameterError, match=message):
        described(folder, tiny.manifest, **{option: written(folder, text)})


def test_a_folder_without_masks_of_the_photos_is_refused(folder, tiny):
    (folder / "masks").mkdir()
    with pytest.raises(camrt.ParameterError, match=r"that of photo\.jpg is called photo\.png"):
        described(folder, tiny.manifest, masks=folder / "masks")


def test_a_table_that_is_no_text_is_refused(folder, tiny):
    (folder / "table.csv").write_bytes(b"file,class\n\xff\xfe,1\n")
    with pytest.raises(camrt.ParameterError, match="is not a CSV in UTF-8"):
        described(folder, tiny.manifest, labels=folder / "table.csv")


def test_boxes_beside_the_photo_are_an_error_of_that_photo(folder, tiny):
    boxes = written(folder, "file,x0,y0,x1,y1\na.png,100,100,200,200\nsub/b.jpg,-5,-5,100,100\n")
    subjects = described(folder, tiny.manifest, boxes=boxes)
    with pytest.raises(
        camrt.ImageError, match="none of its boxes holds a pixel of the photo of 20 x 10; the first is 100, 100"
    ):
        subjects["a.png"].region(0, (10, 20))
    assert subjects["sub/b.jpg"].region(0, (10, 20)).all()


def test_a_mask_of_0_and_1_is_an_error_of_that_photo_and_a_black_one_is_none(folder, tiny):
    (folder / "masks").mkdir()
    mask = np.zeros((10, 20), np.uint8)
    cv2.imwrite(str(folder / "masks" / "a.png"), mask)
    cv2.imwrite(str(folder / "masks" / "b.png"), mask + 1)
    subjects = described(folder, tiny.manifest, masks=folder / "masks")
    assert not subjects["a.png"].region(0, (10, 20)).any()
    with pytest.raises(camrt.ImageError, match="brightest pixel of the mask is 1 of 255"):
        subjects["sub/b.jpg"].region(0, (10, 20))


def test_a_mask_of_more_pixels_than_can_be_read_is_an_error_of_that_photo(folder, tiny, monkeypatch):
    def refuse(*_):
        raise cv2.error("too many pixels")

    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks" / "a.png"), np.zeros((10, 20), np.uint8))
    subject = described(folder, tiny.manifest, masks=folder / "masks")["a.png"]
    monkeypatch.setattr(cv2, "imdecode", refuse)
    with pytest.raises(camrt.ImageError, match="no picture that can be decoded"):
        subject.region(0, (10, 20))
