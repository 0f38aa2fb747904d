"""The keys of the session state that are not those of a control; these stand in its declaration."""

from __future__ import annotations

# Several pages.
RUN = "run"  # the name of the run that is shown
PAGE = "page"  # the address of the page that is shown
ARRIVED = "arrived"  # whether the visitor has come to it just now
LAST_RUN = "last_run"  # the name of the run that the visitor saw last, on whatever page
LEFT_OUT = "left_out"  # sentences: what of the page's address could not be set
DEFAULTS = "defaults"  # {key: value}: the default of each control that follows others, last shown
ANSWERED = "lecture_answered"  # {number}: the steps of the lecture whose questions are answered
TIMESTEP = "timestep"  # the slider of t
CAMERA, UPLOAD = "camera", "upload"  # the fields of `image_source`
# The Schedule page.
DESIGN_NAME = "design_name"  # the name under which the schedule is saved
DESIGN_ERROR = "design_error"  # text: why a schedule was not saved or deleted, until it is shown
# The Sampling page.
JOBS = "jobs"  # {mode: SamplingJob}: the session's newest job of each mode
ADVANCED = "advanced"  # whether the advanced controls are shown
USUAL_SPACING = "usual_spacing"  # of the steps, of the way to sample that was last shown
KNOWN_LATEST = "known_latest"  # {run: step}: the checkpoint that "latest" means in this session
RESTORED = "restored"  # (level, text): what came of the last image whose settings were restored
HISTORY = "history_of_results"  # {number of the job: Result}: the last ones, oldest first
EARLIER = "earlier_result"  # (number, newest): the one that is shown again, and since which job
RESTORED_COUNT = "restored_count"  # how many images were dropped; numbers the upload fields
OWN_SERIES = "own_series"  # {(Path, time)}: the series that this session started
SERIES = "series"  # the name of the series that is shown
SERIES_TO_DELETE = "series_to_delete"  # the name of the series that the open dialog asks about
SERIES_ERROR = "series_error"  # text: why a button of a series failed, until it is shown
MASK = "mask"
IMMEDIATE = "immediate_image"  # the last image that followed the hand: see `sampling.immediate`
HAND_RESTS = "hand_rests"  # whether the controls have just been set from it
COMPARED = "compared"  # [key]: which lists the mode Compare shows
# The Data page.
DATA_COUNT = "data_count"  # how many zip files were uploaded; numbers the field for the next one
NEXT_DATA = "next_data"  # the spec of the data set that the page turns to
UPLOADED_DATA = "uploaded_data"  # the spec of the data set that was just made, until it is shown
# The Training page.
NAME = "name"  # the new run's, in the form
FORM_OPEN = "form_open"
PACE = "pace"  # seconds between two looks at a live run, of this session; also on Home
DUPLICATE = "duplicate"  # name of the run whose settings the form takes next
DISTIL = "distil"  # name of the run that the form is to distil next
NEW_RUN = "new_run"  # name of the run that was just started or restored
SHOWN_NEW_RUN = "shown_new_run"  # the same, and for how many more looks it is put in front
NOTIFY = "notify"  # the button of the browser's notifications
TO_DELETE = "to_delete"  # name of the run that is about to be deleted
EDIT_OPEN = "edit_open"  # with the run's name: whether its form of settings is open
EDIT_CLOSING = "edit_closing"  # for how many more looks that form is closed
EDITED = "edited"  # (run, its settings before, {field: value}): an edit until it is confirmed
DELETED = "deleted"  # the `trash.Deleted` that "Undo" restores
REFUSAL = "refusal"  # why the action of the last button failed
# The Review page.
TABLE = "table"  # how many tables of runs there have been; a number makes another one
SELECTED = "selected"  # [name]: the runs that are selected in the table
TOO_MANY = "too_many"  # whether more runs were selected than can be
VIEW_NAME = "view_name"  # the name under which the view is saved
VIEW_ERROR = "view_error"  # text: why a view was not saved or deleted, until it is shown
GUEST = "guest"  # (name, secret) of a visitor who is not signed in
NAME_ERROR = "name_error"  # text: why a name was not taken, until it is shown
EDITED_NOTE = "edited_note"  # (place, remark): the note that the visitor edits
REMARK_ERROR = "remark_error"  # (field or "", sentence, text): why a remark was not written
POLL = "poll"  # the name of the vote that the form starts
VOTING = "voting"  # {(vote, time, person): Session}: where the visitor is in each vote
VOTE_ERROR = "vote_error"  # text: why a vote was not started or cast, until it is shown
PRESENTED = "presented"  # the code under which the visitor presents
FOLLOWED = "followed"  # (code, changes): what the visitor follows, and what the page shows of it
IMPORT_COUNT = "import_count"  # how many archives were imported; numbers the field for the next one
IMPORTED = "imported"  # the name of the run that was just imported, until it is shown
