//! The E2B-compatible API: who may have which sandbox, where, how long.
