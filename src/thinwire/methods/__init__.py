"""Methods of the literature as products of parts."""

from thinwire.methods.base import GradientAveraging, Method, ModelAveraging, check_method
from thinwire.methods.catalog import CATALOG, Row, parse_method
from thinwire.methods.schedules import Every, Schedule
from thinwire.methods.updates import Outer, Update

__all__ = [
    "CATALOG",
    "Every",
    "GradientAveraging",
    "Method",
    "ModelAveraging",
    "Outer",
    "Row",
    "Schedule",
    "Update",
    "check_method",
    "parse_method",
]
