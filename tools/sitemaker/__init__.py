"""Makes the site: notebooks in, whole pages out (see `build`)."""
