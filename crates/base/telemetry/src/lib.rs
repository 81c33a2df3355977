//! Logs, metrics, access records and trace context: how every other crate speaks.
//!
//! ```text
//! request ends ──▶ access::Record ──┬─▶ access::Log     one JSON line, in files of bounded size
//!                                   └─▶ metrics::Traffic counters and histograms
//! ```
//!
//! The log line and the counters are made from the same record, so they cannot disagree. A record
//! holds no query string, no header's value and no body: it may be shown to whoever may see the
//! graph.
//!
//! Reading the records back for a person is `observe`; this crate only knows the files.

pub mod access;
pub mod logging;
pub mod metrics;
pub mod trace;
