"""What can go wrong in the editor. Every message quotes the offending value and says what would work."""


class EditorError(Exception):
    """Anything that the caller can understand and mend."""


class ModelError(EditorError):
    """A model reference that cannot be found, opened or used."""


class PictureError(EditorError):
    """A picture that cannot be edited."""


class PointError(EditorError):
    """A handle or target that lies where it cannot."""


class MaskError(EditorError):
    """A mask that does not fit its picture."""


class SettingsError(EditorError):
    """A setting that does not exist, is out of range, or cannot change now."""


class NumericalError(EditorError):
    """A step whose numbers were not finite; the state before that step is kept."""
