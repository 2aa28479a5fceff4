//! Owns every machine on this host and decides when each starts, pauses and ends.
