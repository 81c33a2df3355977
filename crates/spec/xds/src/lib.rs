//! The resources that the data plane is told.
