#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_policy_fuzz::parse::run(bytes));
