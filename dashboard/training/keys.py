"""The keys of the Training page in the session state, apart from those of its controls."""

from __future__ import annotations

NAME = "name"  # the new run's, in the form
FORM_OPEN = "form_open"
DUPLICATE = "duplicate"  # name of the run whose settings the form takes next
NEW_RUN = "new_run"  # name of the run that was just started or restored
SHOWN_NEW_RUN = "shown_new_run"  # the same, and for how many more looks it is put in front
TO_DELETE = "to_delete"  # name of the run that is about to be deleted
DELETED = "deleted"  # the `trash.Deleted` that "Undo" restores
REFUSAL = "refusal"  # why the last button could not do what it says
