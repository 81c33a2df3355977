//! The program as people meet it: commands, output, exit codes. The journeys
//! are in `tests/`; each starts the built program on directories of its own.
