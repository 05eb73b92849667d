"""The status pages: what a browser is shown of a home, from the document of ``--json status``."""
