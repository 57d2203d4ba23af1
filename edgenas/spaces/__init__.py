"""Search spaces, one folder each, registered as plug-ins (edgenas.plugins)."""

DEFAULT = "nasbench201"  # where a user names none
