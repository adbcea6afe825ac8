"""The editor's errors. Every message quotes the value and says what to do."""


class EditorError(Exception):
    """Base class of all errors that a caller can understand and fix."""


class ModelError(EditorError):
    """A model can't be found, opened or used."""


class PictureError(EditorError):
    """A picture can't be edited."""


class PointError(EditorError):
    """A handle or target point is missing or misplaced."""


class MaskError(EditorError):
    """A mask does not fit its picture."""


class SettingsError(EditorError):
    """A setting does not exist, is out of range, or can't change now."""


class NumericalError(EditorError):
    """A step gave numbers that are not finite; the state before that step is unchanged."""
