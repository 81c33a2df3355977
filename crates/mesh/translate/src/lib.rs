//! Objects to xDS resources and status; pure.
