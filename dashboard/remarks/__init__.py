"""What people say of runs, and under which name: shown and written on several pages."""

from dashboard.remarks.name import ask_name, name_now
from dashboard.remarks.said import say_about, show_said, show_summary
from dashboard.remarks.words import in_words, when, who

__all__ = [
    "ask_name",
    "in_words",
    "name_now",
    "say_about",
    "show_said",
    "show_summary",
    "when",
    "who",
]
