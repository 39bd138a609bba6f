"""The trackers that need no server."""

import numpy as np
import pytest

from stylejobs.tracking.tracker import Delivery, MemoryTracker, NullTracker


def test_memory_tracker_remembers_what_was_logged(tmp_path):
    report = tmp_path / "report.html"
    report.write_bytes(b"<p>")
    tracker = MemoryTracker()
    image_HWC = np.zeros((2, 3, 3), np.uint8)
    tracker.log_params({"lr": 0.1})
    tracker.log_params({"lr": 0.2, "steps": 5})
    tracker.log_metrics({"loss": 1}, step=0)
    tracker.log_metrics({"loss": 0.5}, step=10)
    tracker.log_image(image_HWC, "sample", step=3)
    tracker.log_file(str(report), folder="pages")
    tracker.log_text("hi", "notes/a.txt")
    tracker.set_tags({"git": "abc"})
    tracker.log_dataset("content", "s3://a", "0123", "training", {"rows": 7})
    tracker.log_dataset("content", "s3://b", "0123", "evaluation")
    image_HWC[:] = 9

    delivery = tracker.finish("FAILED")

    assert tracker.params == {"lr": "0.1", "steps": "5"}
    assert tracker.metrics == {"loss": [(0, 1.0), (10, 0.5)]}
    assert tracker.images["sample", 3].max() == 0
    assert tracker.files == {"pages/report.html": b"<p>"}
    assert (tracker.texts, tracker.tags, tracker.status) == ({"notes/a.txt": "hi"}, {"git": "abc"}, "FAILED")
    assert tracker.datasets == {("content", "0123"): ("s3://a", "training", {"rows": 7})}
    assert delivery == Delivery(num_delivered=9) and delivery.complete


def test_null_tracker_takes_everything():
    with NullTracker() as tracker:
        tracker.log_params({"a": 1})
        tracker.log_metrics({"a": 1.0}, 0)
        tracker.log_file("/does/not/exist")
        tracker.log_dataset("content", "s3://a", "0123", "training")
    assert tracker.run_id is None and tracker.finish().complete


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_leaving_the_context_says_how_the_run_ended(error, status):
    tracker = MemoryTracker()
    if error is None:
        with tracker:
            pass
    else:
        with pytest.raises(error), tracker:
            raise error
    assert tracker.status == status


@pytest.mark.parametrize("delivery", [Delivery(5, 1), Delivery(5, 0, "the run could not be marked FINISHED")])
def test_a_delivery_with_a_loss_is_not_complete(delivery):
    assert not delivery.complete
