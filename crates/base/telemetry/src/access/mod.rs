//! One record for each request or connection, and the files they are kept in.

mod log;
mod reader;
mod record;

pub use log::{Log, LogConfig, LogError};
pub use reader::{ReadError, Reader};
pub use record::{
    Decision, DecisionId, Evidence, Outcome, Peer, Place, PolicyAction, Protocol, Record, Reporter,
    Verdict,
};
