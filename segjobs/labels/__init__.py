"""Other people's labels, read: one file a format; class tables, matching of files, splits."""
