"""Where workers share their metrics: prometheus_client reads this variable when it is first imported."""

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
