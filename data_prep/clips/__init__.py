"""The archive of clips: one record a clip, extraction, audit."""
