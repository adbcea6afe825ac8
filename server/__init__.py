"""livedrag's web service: rooms in which people drag parts of one picture together."""
