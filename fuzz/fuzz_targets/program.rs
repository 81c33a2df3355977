#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| carrack_parsers::run("program", bytes));
