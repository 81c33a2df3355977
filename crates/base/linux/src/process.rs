//! Processes by descriptor: clone3, pidfd, exit status.
