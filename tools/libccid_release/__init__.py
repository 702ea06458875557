"""What a release of libccid knows of readers, beside the table of readers. ``tools/update-readers``
reads and writes the files; the modules here are pure."""
