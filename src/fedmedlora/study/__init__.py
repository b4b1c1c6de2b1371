"""A study: data, backbone, methods and cohorts, run into a folder from which it is scored."""
