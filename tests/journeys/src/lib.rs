//! The program as people meet it: commands, output, exit codes.
