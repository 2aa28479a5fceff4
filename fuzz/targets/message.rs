//! A message of a call, in either codec.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest::fuzzing::message(bytes));
