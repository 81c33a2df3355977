//! Logs, metrics, access records and trace context.
