"""What a worker is told to import and cannot."""

raise ImportError("libmissing.so.7: cannot open shared object file")
