"""The meaning of the objects: classes, listeners, attachment, references, backends, precedence. Pure."""
