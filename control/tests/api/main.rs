//! The API over HTTP, with a fake host behind it and a real ledger.

mod lifetime;
mod listing;
mod rig;
mod routes;
