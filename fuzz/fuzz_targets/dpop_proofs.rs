#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stockade::fuzz::run("dpop_proofs", bytes));
