"""The keys of the session state that are not those of a control; these stand in its declaration."""

from __future__ import annotations

JOBS = "jobs"  # {mode: SamplingJob}: the session's newest job of each mode
WATCHED = "watched"  # [SamplingJob]: the jobs that this rerun of the page shows
KNOWN_LATEST = "known_latest"  # {run: step}: the checkpoint that "latest" means in this session
RESTORED = "restored"  # (level, text): what came of the last image whose settings were restored
RESTORED_COUNT = "restored_count"  # how many images were dropped; numbers the upload fields
OWN_SERIES = "own_series"  # {Path}: the series that this session started
SERIES_TO_DELETE = "series_to_delete"  # the name of the series that the open dialog asks about
SERIES_ERROR = "series_error"  # text: why a button of a series failed, until it is shown
CAMERA, UPLOAD = "camera", "upload"  # the fields of `image_source`
MASK = "mask"
