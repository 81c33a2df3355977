//! Holds one container: its stdio, signals and exit.
