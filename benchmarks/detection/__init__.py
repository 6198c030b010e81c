"""Detection delay at equal run time without drift, beside the streaming detectors of other libraries."""
