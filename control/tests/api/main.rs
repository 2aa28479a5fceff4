//! The API over HTTP, with a fake host behind it and a real ledger.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lifetime;
mod listing;
mod rig;
mod routes;
